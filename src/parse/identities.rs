//! The file of `discovery.identities`: CSV with a header, as `ixsmi --query-gpu` prints it.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::model::identity::{ChipUuid, Identities};
use crate::model::pci::PciAddress;

/// What prints the file.
pub const IXSMI: &str = "ixsmi --query-gpu=index,uuid,pci.bus_id --format=csv";

/// Why nothing of the file counts.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum IdentitiesError {
    /// No line at all.
    #[error("the file is empty; write it with `{IXSMI}`")]
    Empty,
    /// The header does not name a column that is needed, or names it twice.
    #[error(
        "line {line}: the header must name the column `{column}` once; write the file with `{IXSMI}`"
    )]
    Column {
        /// Of the header.
        line: usize,
        /// `uuid` or `pci.bus_id`.
        column: &'static str,
    },
    /// A chip or a UUID in two lines. One of them must be wrong, and nothing shows which.
    #[error("line {line}: {name} is in line {first} already; write the file with `{IXSMI}`")]
    Repeated {
        /// Of the second.
        line: usize,
        /// Address or UUID.
        name: String,
        /// Of the first.
        first: usize,
    },
}

/// Parses the file. Columns may be in any order and any case; other columns are ignored. A line
/// without a valid address and UUID costs only the chip that it is about.
///
/// # Errors
/// [`IdentitiesError`]; nothing of such a file counts.
pub fn parse_identities(text: &str) -> Result<Identities, IdentitiesError> {
    let text = text.trim_start_matches('\u{feff}');
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    let mut lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let (line, header) = lines.next().ok_or(IdentitiesError::Empty)?;
    let uuid = find_column(line, header, "uuid")?;
    let address = find_column(line, header, "pci.bus_id")?;
    let mut read = Lines::default();
    for (line, text) in lines {
        let cells: Vec<_> = cells(text).collect();
        match entry(cells.get(address).copied(), cells.get(uuid).copied()) {
            Ok((address, uuid)) => read.add(line, address, uuid)?,
            Err(problem) => read.identities.bad_lines.push(format!("line {line}: {problem}")),
        }
    }
    Ok(read.identities)
}

fn cells(line: &str) -> impl Iterator<Item = &str> {
    line.split(',').map(|cell| cell.trim().trim_matches('"').trim())
}

fn find_column(line: usize, header: &str, column: &'static str) -> Result<usize, IdentitiesError> {
    let mut found = cells(header).enumerate().filter(|(_, cell)| cell.eq_ignore_ascii_case(column));
    match (found.next(), found.next()) {
        (Some((index, _)), None) => Ok(index),
        _ => Err(IdentitiesError::Column { line, column }),
    }
}

fn entry(address: Option<&str>, uuid: Option<&str>) -> Result<(PciAddress, ChipUuid), String> {
    let address = address.ok_or("the column `pci.bus_id` is missing")?;
    let address: PciAddress = address.parse().map_err(|error| format!("{error}"))?;
    let uuid = uuid.ok_or_else(|| format!("{address}: the column `uuid` is missing"))?;
    let uuid = uuid.parse().map_err(|error| format!("{address}: {error}"))?;
    Ok((address, uuid))
}

/// What was read, and in which line each name is.
#[derive(Default)]
struct Lines {
    identities: Identities,
    by_name: BTreeMap<String, usize>,
}

impl Lines {
    fn add(
        &mut self,
        line: usize,
        address: PciAddress,
        uuid: ChipUuid,
    ) -> Result<(), IdentitiesError> {
        for name in [address.to_string(), uuid.to_string()] {
            // Two spellings of one UUID are one UUID.
            if let Some(first) = self.by_name.insert(name.to_ascii_lowercase(), line) {
                return Err(IdentitiesError::Repeated { line, name, first });
            }
        }
        self.identities.uuids.insert(address, uuid);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "GPU-5020332b-19bd-52dd-9a9c-00496701884f";
    const OTHER: &str = "GPU-f7e62b92-ddc0-53dd-969f-e3abfbe116e2";

    /// `ADDRESS UUID`, then the bad lines.
    fn shown(text: &str) -> Result<Vec<String>, String> {
        let Identities { uuids, bad_lines } =
            parse_identities(text).map_err(|error| error.to_string())?;
        let uuids = uuids.iter().map(|(address, uuid)| format!("{address} {uuid}"));
        Ok(uuids.chain(bad_lines).collect())
    }

    #[track_caller]
    fn check(text: &str, expected: &[&str]) {
        let expected: Vec<_> = expected.iter().map(|line| (*line).to_owned()).collect();
        assert_eq!(shown(text), Ok(expected), "{text}");
    }

    #[track_caller]
    fn check_refused(text: &str, expected: &str) {
        assert_eq!(shown(text).unwrap_err(), expected, "{text}");
    }

    #[test]
    fn what_ixsmi_prints_is_read_whatever_the_columns() {
        let expected = [&*format!("0000:13:00.0 {ONE}"), &format!("0000:16:00.0 {OTHER}")];
        let printed = format!(
            "index, uuid, pci.bus_id\n0, {ONE}, 00000000:13:00.0\n1, {OTHER}, 00000000:16:00.0\n"
        );
        check(&printed, &expected);
        let windows = format!(
            "\u{feff}PCI.Bus_Id,name,UUID\r\n\r\n0000:16:00.0,Iluvatar BI-V150,{OTHER}\r\n\
             \"0000:13:00.0\",\"Iluvatar BI-V150\",\"{ONE}\""
        );
        check(&windows, &expected);
        check(&format!("uuid,pci.bus_id\n{ONE},0001:0A:00.0"), &[&format!("0001:0a:00.0 {ONE}")]);
        check("uuid, pci.bus_id\n", &[]);
    }

    #[test]
    fn a_bad_line_names_its_number_and_costs_only_its_chip() {
        let text = format!(
            "uuid, pci.bus_id\n[N/A], 0000:13:00.0\n{OTHER}, 0000:16:00.0\n{ONE}\n{ONE}, 13:00.0\n"
        );
        check(
            &text,
            &[
                &format!("0000:16:00.0 {OTHER}"),
                "line 2: 0000:13:00.0: `[N/A]` is not a UUID such as \
                 `GPU-75401a56-2224-5257-8e2c-8f6dac7c37bc`",
                "line 4: the column `pci.bus_id` is missing",
                "line 5: `13:00.0` is not a PCI address such as `0000:13:00.0`",
            ],
        );
    }

    #[test]
    fn a_file_that_contradicts_itself_or_lacks_a_column_is_refused() {
        check_refused("", &format!("the file is empty; write it with `{IXSMI}`"));
        check_refused(" \n\n", &format!("the file is empty; write it with `{IXSMI}`"));
        let column = |line: usize, name: &str| {
            format!(
                "line {line}: the header must name the column `{name}` once; write the file with \
                 `{IXSMI}`"
            )
        };
        check_refused(&format!("0, {ONE}, 0000:13:00.0"), &column(1, "uuid"));
        check_refused("\nuuid, index", &column(2, "pci.bus_id"));
        check_refused("uuid, pci.bus_id, UUID", &column(1, "uuid"));
        let again = |name: &str| {
            format!("line 3: {name} is in line 2 already; write the file with `{IXSMI}`")
        };
        let header = "uuid, pci.bus_id";
        check_refused(
            &format!("{header}\n{ONE}, 0000:13:00.0\n{OTHER}, 00000000:13:00.0"),
            &again("0000:13:00.0"),
        );
        let upper = ONE.to_uppercase();
        check_refused(
            &format!("{header}\n{ONE}, 0000:13:00.0\n{upper}, 0000:16:00.0"),
            &again(&upper),
        );
    }
}

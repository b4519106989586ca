//! `discover -o udev`: rules that give each chip a link under its board's name.
//!
//! Which chips share a board takes evidence that a rule cannot weigh, so the conclusions are
//! written down. Syntax: udev(7). `udev-rules/70-iluvatar.rules` has what needs no conclusion.

use super::DiscoveryReport;
use crate::model::board::Board;

/// The report as a rules file; it runs no programs.
#[must_use]
pub fn udev(report: &DiscoveryReport<'_>) -> String {
    let mut text = "# Links to the chips of each board, in /dev/iluvatar-by-path. Made by\n\
                    # `ix-device-plugin discover -o udev`; make it anew after boards were moved.\n"
        .to_owned();
    for board in &report.snapshot.inventory.boards {
        text.push_str(&format!(
            "\n# {}, {}, {}\n",
            board.address,
            one_line(&board.model_or_id()),
            board.evidence
        ));
        text.push_str(&rules(board));
    }
    text
}

/// A rule for each chip, numbered by address. A chip that is missing now leaves its number to the
/// next: the address in the rule still says which one is meant.
fn rules(board: &Board) -> String {
    let rule = |(number, address)| {
        format!(
            "ACTION!=\"remove\", KERNEL==\"iluvatar[0-9]*\", SUBSYSTEMS==\"pci\", \
             KERNELS==\"{address}\", SYMLINK+=\"iluvatar-by-path/board-{}-chip{number}\"\n",
            board.address
        )
    };
    board.chips.iter().map(|chip| chip.address).enumerate().map(rule).collect()
}

/// A model's name may come from the configuration; a line break would end the comment.
fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

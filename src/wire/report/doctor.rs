//! The findings of `doctor`, for people and for scripts.

use serde::Serialize;

use super::columns::columns;
use super::paint::Paint;
use crate::model::doctor::finding::{Diagnosis, Finding, Level, deciding, exit_status};

const HEADING: &[&str] = &["CHECK", "FINDING", "WHAT"];
const LEVEL_COLUMN: usize = 1;

/// The report as text: a line for each finding, its remedy below it, then a summary. Checks that were
/// skipped as a whole have no lines of their own.
#[must_use]
pub fn table(report: &[Diagnosis], paint: Paint) -> String {
    let (mut rows, mut levels) = (Vec::new(), Vec::new());
    for Diagnosis { check, findings } in report.iter().filter(|it| !it.is_skipped()) {
        for (number, finding) in findings.iter().enumerate() {
            let name = if number == 0 { check.name() } else { "" };
            let mut sentences = finding.sentence.lines();
            let first = sentences.next().unwrap_or_default();
            rows.push(row(name, finding.level.name(), first));
            rows.extend(sentences.map(|line| row("", "", line)));
            rows.extend(finding.remedy.iter().map(|remedy| row("", "", &format!("> {remedy}"))));
            levels.resize(rows.len(), finding.level);
        }
    }
    let mut text = columns(HEADING, &rows, paint, |row, column, cell| match column {
        LEVEL_COLUMN => paint.level(levels[row], cell),
        _ => cell.to_owned(),
    });
    text.push('\n');
    text.extend(skipped(report));
    text.push_str(&format!("{}\n", summary(report)));
    text
}

/// `2 checks skipped: the .node file has no /var (kubelet-socket, stale-sockets)`; none without
/// skipped checks.
fn skipped(report: &[Diagnosis]) -> Option<String> {
    let skipped: Vec<_> = report.iter().filter(|it| it.is_skipped()).collect();
    let mut reasons: Vec<(&str, Vec<&str>)> = Vec::new();
    for Diagnosis { check, findings } in &skipped {
        let why = findings.first()?.sentence.as_str();
        match reasons.iter_mut().find(|(reason, _)| *reason == why) {
            Some((_, checks)) => checks.push(check.name()),
            None => reasons.push((why, vec![check.name()])),
        }
    }
    let reasons: Vec<_> =
        reasons.iter().map(|(why, checks)| format!("{why} ({})", checks.join(", "))).collect();
    let (number, plural) = (skipped.len(), if skipped.len() == 1 { "" } else { "s" });
    (number > 0).then(|| format!("{number} check{plural} skipped: {}\n", reasons.join("; ")))
}

fn row(name: &str, level: &str, text: &str) -> Vec<String> {
    vec![name.to_owned(), level.to_owned(), text.to_owned()]
}

/// `1 failure, 2 warnings, 3 notes: exit status 14 (binding)`.
fn summary(report: &[Diagnosis]) -> String {
    let findings = || report.iter().flat_map(|diagnosis| &diagnosis.findings);
    let counted = [Level::Failure, Level::Warning, Level::Note].map(|level| {
        let number = findings().filter(|finding| finding.level == level).count();
        let plural = if number == 1 { "" } else { "s" };
        format!("{number} {level}{plural}")
    });
    let status = exit_status(report);
    let by = deciding(report).map_or(String::new(), |check| format!(" ({check})"));
    format!("{}: exit status {status}{by}", counted.join(", "))
}

/// `doctor -o json`. Names are stable; fields may be added.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Document<'a> {
    exit_status: u8,
    checks: Vec<CheckDocument<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CheckDocument<'a> {
    name: &'static str,
    exit_status: u8,
    finding: &'static str,
    findings: Vec<FindingDocument<'a>>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct FindingDocument<'a> {
    finding: &'static str,
    sentence: &'a str,
    remedy: Option<&'a str>,
}

/// The report, for scripts.
#[must_use]
pub fn document(report: &[Diagnosis]) -> Document<'_> {
    let checks = report.iter().map(|diagnosis| CheckDocument {
        name: diagnosis.check.name(),
        exit_status: diagnosis.check.exit_status(),
        finding: diagnosis.level().name(),
        findings: diagnosis.findings.iter().map(finding_document).collect(),
    });
    Document { exit_status: exit_status(report), checks: checks.collect() }
}

fn finding_document(finding: &Finding) -> FindingDocument<'_> {
    FindingDocument {
        finding: finding.level.name(),
        sentence: &finding.sentence,
        remedy: finding.remedy.as_deref(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::doctor::check::Check;

    #[test]
    fn every_finding_has_its_line_and_skipped_checks_share_one() {
        let report = [
            Diagnosis { check: Check::Sysfs, findings: vec![Finding::ok("fine")] },
            Diagnosis {
                check: Check::Binding,
                findings: vec![
                    Finding::failure("a is unbound", "bind a"),
                    Finding::note("two\nlines"),
                ],
            },
            Diagnosis { check: Check::Numa, findings: vec![Finding::skipped("no /sys")] },
            Diagnosis { check: Check::Links, findings: vec![Finding::skipped("no /sys")] },
            Diagnosis { check: Check::Inotify, findings: vec![Finding::skipped("no /proc")] },
        ];
        let expected = "CHECK    FINDING  WHAT\n\
                        sysfs    ok       fine\n\
                        binding  failure  a is unbound\n\
                        \u{20}                 > bind a\n\
                        \u{20}        note     two\n\
                        \u{20}                 lines\n\
                        \n\
                        3 checks skipped: no /sys (numa, links); no /proc (inotify)\n\
                        1 failure, 0 warnings, 1 note: exit status 14 (binding)\n";
        assert_eq!(table(&report, Paint::Plain), expected);
        assert_eq!(
            serde_json::to_value(document(&report)).unwrap(),
            serde_json::json!({"exitStatus": 14, "checks": [
                {"name": "sysfs", "exitStatus": 11, "finding": "ok", "findings": [
                    {"finding": "ok", "sentence": "fine", "remedy": null}]},
                {"name": "binding", "exitStatus": 14, "finding": "failure", "findings": [
                    {"finding": "failure", "sentence": "a is unbound", "remedy": "bind a"},
                    {"finding": "note", "sentence": "two\nlines", "remedy": null}]},
                {"name": "numa", "exitStatus": 26, "finding": "skipped", "findings": [
                    {"finding": "skipped", "sentence": "no /sys", "remedy": null}]},
                {"name": "links", "exitStatus": 27, "finding": "skipped", "findings": [
                    {"finding": "skipped", "sentence": "no /sys", "remedy": null}]},
                {"name": "inotify", "exitStatus": 29, "finding": "skipped", "findings": [
                    {"finding": "skipped", "sentence": "no /proc", "remedy": null}]},
            ]})
        );
    }
}

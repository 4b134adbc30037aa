//! The units of `docs/operating.md`, as systemd itself interprets them.

use std::process::Command;

use crate::support::hallway::BULLHORN;

const PAGE: &str = include_str!("../../docs/operating.md");
/// How exposed a unit may be, out of 100 (`systemd-analyze security`); one without hardening has 96.
const MOST_EXPOSED: &str = "25";

/// Writes each unit of the page to a file, with the program under test.
fn units(folder: &std::path::Path) -> Vec<std::path::PathBuf> {
    let blocks = PAGE.split("```ini\n").skip(1).map(|rest| rest.split("```").next().unwrap());
    let write = |(at, unit): (usize, &str)| {
        let path = folder.join(format!("bullhorn-{at}.service"));
        assert!(unit.contains("/usr/local/bin/bullhorn"), "{unit}");
        std::fs::write(&path, unit.replace("/usr/local/bin/bullhorn", BULLHORN)).unwrap();
        path
    };
    blocks.enumerate().map(write).collect()
}

fn analyze(arguments: &[&str], unit: &std::path::Path) -> (bool, String) {
    let output = Command::new("systemd-analyze").args(arguments).arg(unit).output();
    let output = output.expect("systemd-analyze is missing: run script/setup tests");
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn systemd_understands_every_line_and_shuts_the_rest_out() {
    let folder = tempfile::tempdir().unwrap();
    let units = units(folder.path());
    assert_eq!(units.len(), 2, "a station's and an announcer's");
    for unit in units {
        let name = unit.file_name().unwrap().to_str().unwrap();
        let (is_good, said) = analyze(&["verify", "--man=no"], &unit);
        // It also complains about other units on this machine.
        assert!(is_good && !said.contains(name), "{said}");
        let (is_closed, said) = analyze(
            &["security", "--offline=true", "--no-pager", &format!("--threshold={MOST_EXPOSED}")],
            &unit,
        );
        assert!(is_closed, "{said}");
        // A station must come back however often it has stopped.
        let text = std::fs::read_to_string(&unit).unwrap();
        assert!(
            text.contains("\nStartLimitIntervalSec=0\n") && text.contains("\nRestart=always\n"),
            "{text}"
        );
    }
}

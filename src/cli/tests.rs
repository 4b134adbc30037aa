#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::clip;

fn parse(line: &str) -> Result<Role, clap::Error> {
    Cli::try_parse_from(line.split(' ')).map(|cli| cli.role)
}

fn announce(line: &str) -> Announce {
    match parse(&format!("bullhorn announce {line}").trim_end().replace("  ", " ")) {
        Ok(Role::Announce(announce)) => announce,
        other => panic!("{other:?}"),
    }
}

fn refusal(line: &str) -> String {
    let error = parse(line).unwrap_err();
    assert_eq!(error.exit_code(), 2, "{error}");
    error.to_string()
}

#[test]
fn clap_finds_no_fault_in_the_definition() {
    use clap::CommandFactory;
    Cli::command().debug_assert();
}

#[test]
fn announce_has_the_documented_defaults() {
    let plain = announce("");
    assert_eq!(plain.listen, ListenOn::Everywhere(DEFAULT_PORT));
    assert_eq!(plain.length(), Some(DEFAULT_LENGTH));
    assert_eq!(plain.keep, Duration::from_secs(60));
    assert_eq!((plain.rate_hz, plain.max_stations), (None, 10_000));
    assert_eq!((plain.input, plain.zones.len(), plain.once, plain.events), (None, 0, false, None));
}

#[test]
fn a_file_is_sent_whole_unless_seconds_are_given() {
    assert_eq!(announce("--input file:a.wav").length(), None);
    assert_eq!(announce("--input file:a.wav --seconds 2.5").length(), Some(Duration::from_millis(2500)));
    assert_eq!(announce("--seconds 120").length(), Some(clip::MAX_LENGTH));
}

#[test]
fn impossible_lengths_are_refused_in_words() {
    for text in ["0", "-3", "-0.5", "nan", "inf", "120.01", "1e400", "1e-30"] {
        let message = refusal(&format!("bullhorn announce --seconds {text}"));
        assert!(message.contains("more than 0 and at most 120 seconds"), "{text}: {message}");
    }
    for text in ["five", "2,5", "5s", ""] {
        let message = refusal(&format!("bullhorn announce --seconds {text}"));
        assert!(message.contains("such as 5 or 2.5"), "{text}: {message}");
    }
}

#[test]
fn keep_is_a_day_at_most() {
    assert_eq!(announce("--keep 0").keep, Duration::ZERO);
    assert_eq!(announce("--keep 86400").keep, MAX_KEEP);
    for text in ["-1", "86401", "nan"] {
        assert!(refusal(&format!("bullhorn announce --keep {text}")).contains("0 to 86400"));
    }
}

#[test]
fn a_rate_and_a_limit_are_held_to_their_bounds() {
    let asked = announce("--rate 16000 --max-stations 250");
    assert_eq!((asked.rate_hz, asked.max_stations), (Some(16_000), 250));
    for words in ["--rate 7999", "--rate 48001", "--rate slow", "--max-stations 0", "--max-stations 65537"] {
        refusal(&format!("bullhorn announce {words}"));
    }
}

#[test]
fn wait_is_10_seconds_at_most() {
    assert_eq!(announce("").wait, crate::stations::STRAGGLER_WAIT);
    assert_eq!(announce("--wait 0").wait, Duration::ZERO);
    assert_eq!(announce("--wait 10000").wait, crate::stations::LONGEST_WAIT);
    for text in ["-1", "10001", "0.5", "nan", "1s"] {
        let message = refusal(&format!("bullhorn announce --wait {text}"));
        assert!(message.contains("whole milliseconds from 0 to 10000"), "{text}: {message}");
    }
}

#[test]
fn delay_is_half_a_second_at_most_either_way() {
    let delay_us = |text: &str| match parse(&format!("bullhorn speaker office{text}")) {
        Ok(Role::Speaker(speaker)) => speaker.delay,
        other => panic!("{other:?}"),
    };
    let read = ["", " --delay 6.5", " --delay -20", " --delay 500", " --delay -500", " --delay 0.0004"]
        .map(delay_us);
    assert_eq!(read, [0, 6_500, -20_000, 500_000, -500_000, 0]);
    for text in ["501", "-500.1", "nan", "inf", "6m"] {
        let message = refusal(&format!("bullhorn speaker office --delay {text}"));
        assert!(message.contains("milliseconds from -500 to 500"), "{text}: {message}");
    }
}

#[test]
fn wait_for_needs_once() {
    assert!(refusal("bullhorn announce --wait-for 2").contains("--once"));
    assert_eq!(announce("--once --wait-for 2").stations_to_wait_for(), 2);
    assert_eq!(announce("--once").stations_to_wait_for(), 0);
}

#[test]
fn a_speaker_takes_zones_a_name_and_an_output() {
    let Ok(Role::Speaker(speaker)) =
        parse("bullhorn speaker office --name hall-1 --zone gym --zone all --output file:d --events json")
    else {
        panic!("refused");
    };
    assert_eq!(speaker.station_name(), "hall-1");
    assert_eq!(speaker.zones, ["gym", "all"]);
    assert_eq!(speaker.events, Some(EventFormat::Json));
    assert!(matches!(speaker.output, Some(Output::File(_))));
    assert!(refusal("bullhorn speaker").contains("HOST"));
}

#[test]
fn a_station_has_one_announcer_or_several_each_named_once() {
    let announcers = |line: &str| match parse(&format!("bullhorn speaker {line}")) {
        Ok(Role::Speaker(speaker)) => speaker,
        other => panic!("{other:?}"),
    };
    let two = announcers("desk-a desk-b:7767 --name hall-1");
    assert_eq!(
        two.announcers.iter().map(Target::to_string).collect::<Vec<_>>(),
        ["desk-a:7766", "desk-b:7767"]
    );
    assert_eq!(two.check_announcers(), Ok(()));
    let twice = announcers("desk-a desk-b desk-a:7766").check_announcers().unwrap_err();
    assert!(twice.to_string().contains("desk-a:7766 is named twice"), "{twice}");
    let many = vec!["a"; MAX_ANNOUNCERS + 1].join(" ");
    refusal(&format!("bullhorn speaker {many}"));
    assert_eq!(announce("").priority, Priority::Normal);
    assert_eq!(announce("--priority emergency").priority, Priority::Emergency);
    assert!(refusal("bullhorn announce --priority urgent").contains("low, normal, high, emergency"));
}

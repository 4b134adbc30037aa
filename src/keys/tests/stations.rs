use std::fs;
use std::time::{Duration, Instant};

use super::*;
use crate::priority::Priority;
use crate::volume::Volume;

#[test]
fn a_name_belongs_to_the_key_that_joined_with_it() {
    let Fixture { _home, folder } = fixture();
    let mut known = KnownStations::open(&folder).unwrap();
    assert_eq!(known.admit(&key(1), "hall-1", &[], 10).unwrap(), Admitted::Joined);
    let before = fs::read(folder.path().join("stations.toml")).unwrap();
    let refused = known.admit(&key(2), "hall-1", &[], 11).unwrap_err();
    assert!(matches!(&refused, KeysError::NameTaken { name, .. } if name == "hall-1"), "{refused}");
    assert_eq!(fs::read(folder.path().join("stations.toml")).unwrap(), before);
    assert!(known.station(&key(2)).is_none());
    assert_eq!(known.admit(&key(1), "hall-1", &[], 12).unwrap(), Admitted::Back);
    assert_eq!(known.admit(&key(1), "hall-2", &[], 13).unwrap(), Admitted::Renamed { from: "hall-1".into() });
    assert_eq!(known.admit(&key(2), "hall-1", &[], 14).unwrap(), Admitted::Joined);
    let again = KnownStations::open(&folder).unwrap();
    let names: Vec<_> =
        again.all().iter().map(|station| (station.name.as_str(), station.joined_unix_s)).collect();
    assert_eq!(names, [("hall-1", 14), ("hall-2", 10)]);
    for bad in ["", "a\nb", &"x".repeat(65)] {
        assert!(matches!(known.admit(&key(3), bad, &[], 1), Err(KeysError::BadName)));
    }
}

#[test]
fn a_volume_set_by_another_process_is_seen_once_and_stays() {
    let Fixture { _home, folder } = fixture();
    let mut running = KnownStations::open(&folder).unwrap();
    running.admit(&key(1), "hall-1", &[], 10).unwrap();
    running.admit(&key(2), "hall-2", &[], 10).unwrap();
    let quiet = Volume::from_db(-6.5);
    KnownStations::open(&folder).unwrap().set_volume("hall-1", quiet).unwrap();
    let Changes { removed, volumes } = running.refresh().unwrap();
    assert!(removed.is_empty());
    assert_eq!(
        volumes.iter().map(|it| (it.name.as_str(), it.volume)).collect::<Vec<_>>(),
        [("hall-1", quiet)]
    );
    assert_eq!(running.refresh().unwrap(), Changes::default());
    // It survives a change of zones, and a write of who was seen.
    running.admit(&key(1), "hall-1", &["gym".into()], 20).unwrap();
    running.saw("hall-2", 30);
    running.save_seen().unwrap();
    let mut again = KnownStations::open(&folder).unwrap();
    assert_eq!(again.named("hall-1").unwrap().volume, quiet);
    assert_eq!(
        again.named("hall-1").unwrap().zones,
        ["gym"],
        "a station that comes back may have other zones"
    );
    again.set_volume("hall-1", None).unwrap();
    assert_eq!(running.refresh().unwrap().volumes[0].volume, None);
    assert!(matches!(again.set_volume("hall-3", quiet), Err(KeysError::NoSuchStation(_))));
}

#[test]
fn a_removed_station_is_gone_from_a_running_announcer_and_stays_gone() {
    let Fixture { _home, folder } = fixture();
    let mut running = KnownStations::open(&folder).unwrap();
    running.admit(&key(1), "hall-1", &[], 10).unwrap();
    running.admit(&key(2), "hall-2", &[], 10).unwrap();
    running.saw("hall-1", 20);
    running.saw("hall-2", 20);
    assert_eq!(running.refresh().unwrap(), Changes::default());
    let removed = KnownStations::open(&folder).unwrap().remove("hall-1").unwrap();
    assert_eq!(removed.key, key(1));
    let gone = running.refresh().unwrap().removed;
    assert_eq!(gone.iter().map(|station| station.name.as_str()).collect::<Vec<_>>(), ["hall-1"]);
    assert!(running.station(&key(1)).is_none());
    running.saw("hall-1", 30);
    running.save_seen().unwrap();
    let again = KnownStations::open(&folder).unwrap();
    assert!(again.station(&key(1)).is_none());
    assert_eq!(again.station(&key(2)).unwrap().last_seen_unix_s, 20);
    assert!(matches!(running.remove("hall-1"), Err(KeysError::NoSuchStation(_))));
    assert_eq!(running.admit(&key(3), "hall-1", &[], 40).unwrap(), Admitted::Joined);
}

#[test]
fn shutting_out_retires_the_invite_too() {
    let Fixture { _home, folder } = fixture();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap();
    let book = InviteBook::new(&folder);
    let invite = book.issue(&announcer, DEFAULT_VALIDITY, 100).unwrap();
    KnownStations::open(&folder).unwrap().admit(&key(1), "hall-1", &[], 100).unwrap();
    assert!(matches!(crate::invite::shut_out(&folder, "hall-9"), Err(KeysError::NoSuchStation(_))));
    assert!(book.accept(invite.secret().id(), 101).unwrap().is_some(), "a wrong name changes nothing");
    crate::invite::shut_out(&folder, "hall-1").unwrap();
    assert!(book.accept(invite.secret().id(), 101).unwrap().is_none());
    assert!(KnownStations::open(&folder).unwrap().station(&key(1)).is_none());
}

#[test]
fn stations_that_join_through_many_processes_at_once_are_all_kept() {
    let Fixture { _home, folder } = fixture();
    std::thread::scope(|scope| {
        for process in 0..4 {
            let folder = &folder;
            scope.spawn(move || {
                let mut known = KnownStations::open(folder).unwrap();
                for number in 0..25 {
                    let number = process * 25 + number;
                    known.admit(&key(number), &format!("hall-{number}"), &[], number).unwrap();
                }
            });
        }
    });
    assert_eq!(KnownStations::open(&folder).unwrap().all().len(), 100);
}

#[test]
fn ten_thousand_stations_are_read_found_and_added_to_quickly() {
    let Fixture { _home, folder } = fixture();
    let mut text = String::new();
    for number in 0..10_000 {
        let key = key(number).to_hex();
        text += &format!(
            "[[station]]\nname = \"hall-{number}\"\nnoise_key = \"{key}\"\njoined_unix = 1\nlast_seen_unix = 2\n"
        );
    }
    folder.lock().unwrap().write("stations.toml", text.as_bytes()).unwrap();
    let begun = Instant::now();
    let mut known = KnownStations::open(&folder).unwrap();
    let opened = begun.elapsed();
    let begun = Instant::now();
    for number in 0..10_000 {
        assert!(known.station(&key(number)).is_some());
        known.saw(&format!("hall-{number}"), 3);
    }
    let found = begun.elapsed();
    let begun = Instant::now();
    known.admit(&key(10_000), "hall-10000", &[], 3).unwrap();
    let joined = begun.elapsed();
    println!("10,000 stations: open {opened:?}, find and note all {found:?}, one more joins {joined:?}");
    assert!(
        opened < Duration::from_secs(5) && found < Duration::from_secs(1) && joined < Duration::from_secs(5)
    );
    assert_eq!(KnownStations::open(&folder).unwrap().all().len(), 10_001);
}

#[test]
fn damaged_tables_are_refused_and_left_alone() {
    let Fixture { _home, folder } = fixture();
    KnownStations::open(&folder).unwrap().admit(&key(1), "hall-1", &[], 10).unwrap();
    let good = fs::read_to_string(folder.path().join("stations.toml")).unwrap();
    for bad in
        [good.clone() + &good, good.replace("07", "zz"), "[[station]]\nname = 3".into(), "\u{0}".into()]
    {
        folder.lock().unwrap().write("stations.toml", bad.as_bytes()).unwrap();
        let refused = KnownStations::open(&folder).unwrap_err();
        assert!(matches!(refused, KeysError::Damaged { .. }), "{refused}");
        assert_eq!(fs::read_to_string(folder.path().join("stations.toml")).unwrap(), bad);
    }
    for bad in ["[\"h:1\"]\nnoise_key = \"a\"\nannouncer_id = \"b\"", "x", "[a]\nb = 1"] {
        folder.lock().unwrap().write("announcers.toml", bad.as_bytes()).unwrap();
        assert!(matches!(Pins::open(&folder), Err(KeysError::Damaged { .. })));
    }
}

#[test]
fn a_running_announcer_keeps_its_stations_when_the_table_is_damaged() {
    let Fixture { _home, folder } = fixture();
    let mut known = KnownStations::open(&folder).unwrap();
    known.admit(&key(1), "hall-1", &[], 10).unwrap();
    folder.lock().unwrap().write("stations.toml", b"torn").unwrap();
    assert!(matches!(known.refresh(), Err(KeysError::Damaged { .. })));
    assert!(known.station(&key(1)).is_some());
    assert!(matches!(known.admit(&key(2), "hall-2", &[], 11), Err(KeysError::Damaged { .. })));
    assert_eq!(fs::read(folder.path().join("stations.toml")).unwrap(), b"torn");
}

#[test]
fn a_station_of_the_announcers_own_user_needs_no_invite() {
    let Fixture { _home, folder } = fixture();
    let station = StationKeys::load_or_create(&folder).unwrap();
    assert!(introduce_locally(&folder, &station, "hall-1", &[], 7).unwrap().is_none(), "no announcer here");
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap();
    let mut running = KnownStations::open(&folder).unwrap();
    let pin = introduce_locally(&folder, &station, "hall-1", &[], 7).unwrap().unwrap();
    assert_eq!(pin, Pin { noise: announcer.noise().public(), announcer: announcer.id() });
    running.refresh().unwrap();
    assert_eq!(running.station(&station.noise().public()).unwrap().name, "hall-1");
}

#[test]
fn a_receipt_outlives_the_process_and_goes_when_the_next_clip_begins() {
    let Fixture { _home, folder } = fixture();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap().id();
    let clip = crate::wire::ClipId { epoch: 3, sequence: 7 };
    let receipt = crate::wire::Receipt {
        clip,
        frames: 96_000,
        start_error_us: -12,
        max_error_us: 30,
        underruns: 2,
        uncertainty_us: 85,
    };
    Heard::open(&folder).unwrap().finish(&announcer, Priority::Normal, receipt).unwrap();
    let mut heard = Heard::open(&folder).unwrap();
    assert_eq!(heard.receipt(&announcer), Some(receipt));
    assert_eq!(
        heard.mark(&announcer, Priority::Normal),
        Some(Mark { epoch: 3, sequence: 7, finished: true })
    );
    heard.advance(&announcer, Priority::Normal, Mark { epoch: 3, sequence: 8, finished: false }).unwrap();
    assert_eq!((heard.receipt(&announcer), Heard::open(&folder).unwrap().receipt(&announcer)), (None, None));
}

#[test]
fn what_was_cut_off_is_known_until_it_is_finished_or_another_is_begun() {
    let Fixture { _home, folder } = fixture();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap().id();
    let clip = |sequence| crate::wire::ClipId { epoch: 3, sequence };
    let mark = |sequence, finished| Mark { epoch: 3, sequence, finished };
    let mut heard = Heard::open(&folder).unwrap();
    assert!(matches!(heard.sounds(&announcer, Priority::Normal, clip(7)), Err(KeysError::HeardLater)));
    heard.advance(&announcer, Priority::Normal, mark(7, false)).unwrap();
    assert_eq!(heard.cut_off(&announcer), None, "it has not sounded");
    heard.sounds(&announcer, Priority::Normal, clip(7)).unwrap();
    let mut heard = Heard::open(&folder).unwrap();
    assert_eq!(heard.cut_off(&announcer), Some(clip(7)));
    heard.advance(&announcer, Priority::Normal, mark(7, false)).unwrap();
    assert_eq!(heard.cut_off(&announcer), Some(clip(7)), "it is taken once more");
    heard.advance(&announcer, Priority::Normal, mark(7, true)).unwrap();
    assert_eq!(heard.cut_off(&announcer), None);
    heard.advance(&announcer, Priority::Normal, mark(8, false)).unwrap();
    heard.sounds(&announcer, Priority::Normal, clip(8)).unwrap();
    heard.advance(&announcer, Priority::Normal, mark(9, false)).unwrap();
    assert_eq!((heard.cut_off(&announcer), Heard::open(&folder).unwrap().cut_off(&announcer)), (None, None));
}

#[test]
fn each_priority_has_a_mark_of_its_own_and_a_station_one_last_receipt() {
    let Fixture { _home, folder } = fixture();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap().id();
    let clip = |sequence| crate::wire::ClipId { epoch: 3, sequence };
    let mark = |sequence, finished| Mark { epoch: 3, sequence, finished };
    let receipt = |sequence| crate::wire::Receipt {
        clip: clip(sequence),
        frames: 9,
        start_error_us: 0,
        max_error_us: 0,
        underruns: 0,
        uncertainty_us: 0,
    };
    let (page, emergency) = (Priority::Normal, Priority::Emergency);
    let mut heard = Heard::open(&folder).unwrap();
    heard.advance(&announcer, page, mark(7, false)).unwrap();
    heard.sounds(&announcer, page, clip(7)).unwrap();
    heard.advance(&announcer, emergency, mark(8, false)).unwrap();
    heard.finish(&announcer, emergency, receipt(8)).unwrap();
    let mut heard = Heard::open(&folder).unwrap();
    assert!(heard.mark(&announcer, page).unwrap().admits(3, 7), "what was interrupted may be played again");
    assert!(!heard.mark(&announcer, emergency).unwrap().admits(3, 8));
    assert_eq!((heard.cut_off(&announcer), heard.receipt(&announcer)), (Some(clip(7)), Some(receipt(8))));
    heard.finish(&announcer, page, receipt(7)).unwrap();
    let heard = Heard::open(&folder).unwrap();
    assert_eq!((heard.cut_off(&announcer), heard.receipt(&announcer)), (None, Some(receipt(7))));
    assert!(
        [(page, 7), (emergency, 8)].iter().all(|(of, n)| !heard.mark(&announcer, *of).unwrap().admits(3, *n))
    );
    assert_eq!(heard.mark(&announcer, Priority::Low), None);
}

#[test]
fn names_and_zones_that_look_alike_are_one_or_refused() {
    let Fixture { _home, folder } = fixture();
    let mut known = KnownStations::open(&folder).unwrap();
    let zones = |zone: &str| [zone.to_owned()];
    known.admit(&key(1), "gym", &zones("yard"), 10).unwrap();
    // The second letter is Cyrillic.
    let refused = known.admit(&key(2), "g\u{443}m", &[], 11).unwrap_err();
    assert!(matches!(refused, KeysError::LooksAlike { what: "station", .. }), "{refused}");
    assert!(refused.to_string().contains("looks like the station gym"), "{refused}");
    let refused = known.admit(&key(2), "attic", &zones("\u{443}ard"), 11).unwrap_err();
    assert!(refused.to_string().contains("looks like the zone yard"), "{refused}");
    let both = ["x-1".to_owned(), "x-l".to_owned()];
    assert!(matches!(known.admit(&key(2), "attic", &both, 11), Err(KeysError::LooksAlike { .. })));
    assert!(known.station(&key(2)).is_none());
    assert_eq!(known.admit(&key(2), "attic", &zones("yard"), 12).unwrap(), Admitted::Joined);
    // A look is free once no station has it any more; a station's own names do not count as another's.
    known.admit(&key(2), "attic", &[], 13).unwrap();
    known.admit(&key(1), "g\u{443}m", &zones("\u{443}ard"), 14).unwrap();
    let mut again = KnownStations::open(&folder).unwrap();
    assert!(matches!(again.admit(&key(2), "gym", &[], 15), Err(KeysError::LooksAlike { .. })));
    // A name is found in whatever form it is typed.
    again.admit(&key(3), "étage", &[], 16).unwrap();
    assert_eq!(again.named("e\u{301}tage").unwrap().key, key(3));
}

#[test]
fn what_is_removed_is_removed_by_its_key_whatever_it_calls_itself_meanwhile() {
    let Fixture { _home, folder } = fixture();
    let mut running = KnownStations::open(&folder).unwrap();
    running.admit(&key(1), "hall-1", &[], 10).unwrap();
    let mut operator = KnownStations::open(&folder).unwrap();
    let found = operator.find("hall-1").unwrap().clone();
    running.admit(&key(1), "hall-2", &[], 11).unwrap();
    running.admit(&key(2), "hall-1", &[], 12).unwrap();
    operator.remove_key(&found.key).unwrap();
    let gone = running.refresh().unwrap().removed;
    assert_eq!(gone.iter().map(|it| (it.key, it.name.as_str())).collect::<Vec<_>>(), [(key(1), "hall-2")]);
    assert_eq!(running.named("hall-1").unwrap().key, key(2), "who took the name since is another");
    operator.remove_key(&found.key).unwrap();
    let by_key = key(2).fingerprint().to_string();
    assert_eq!(crate::invite::shut_out(&folder, &by_key).unwrap().name, "hall-1");
    assert!(KnownStations::open(&folder).unwrap().all().is_empty());
}

#[test]
fn what_could_not_be_read_again_is_not_written() {
    let Fixture { _home, folder } = fixture();
    let mut known = KnownStations::open(&folder).unwrap();
    known.admit(&key(1), "hall-1", &[], 10).unwrap();
    let before = fs::read(folder.path().join("stations.toml")).unwrap();
    let refused = folder.lock().unwrap().write("stations.toml", &vec![b'#'; (32 << 20) + 1]).unwrap_err();
    assert!(matches!(refused, KeysError::TooLarge { .. }), "{refused}");
    assert_eq!(fs::read(folder.path().join("stations.toml")).unwrap(), before);
    // Names and zones at their limits come back unchanged.
    let name = "\"".repeat(64);
    let zones: Vec<String> = (0..16).map(|number| format!("{number:02}{}", "'".repeat(62))).collect();
    known.admit(&key(2), &name, &zones, u64::from(u32::MAX)).unwrap();
    let again = KnownStations::open(&folder).unwrap();
    assert_eq!(
        (&again.station(&key(2)).unwrap().name, &again.station(&key(2)).unwrap().zones),
        (&name, &zones)
    );
    folder.within(&"\u{e9}".repeat(32)).unwrap();
}

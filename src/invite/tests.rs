#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;
use crate::keys::AnnouncerKeys;

fn fixture() -> (tempfile::TempDir, StateFolder, AnnouncerKeys, InviteBook) {
    let home = tempfile::tempdir().unwrap();
    let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap();
    let book = InviteBook::new(&folder);
    (home, folder, announcer, book)
}

fn fixed() -> Invite {
    Invite {
        announcer: NoisePublicKey::from_bytes([0x11; 32]),
        secret: InviteSecret(Zeroizing::new([0x22; 16])),
        expires_unix_s: 1_800_000_000,
    }
}

#[test]
fn the_line_is_what_the_format_says() {
    let line =
        "bh1aeirceirceirceirceirceirceirceirceirceirceirceirceircirceirceirceirceirceirceiqanne5eaglzxb2e";
    assert_eq!(fixed().to_line().len(), PREFIX.len() + LETTERS);
    assert_eq!(*fixed().to_line(), line);
}

#[test]
fn an_invite_comes_back_in_any_case_with_white_space_around_it() {
    let line = fixed().to_line();
    for text in [line.to_string(), line.to_uppercase(), format!("\n\t {}\r\n", *line)] {
        let invite: Invite = text.parse().unwrap();
        assert_eq!(invite.announcer(), fixed().announcer());
        assert_eq!(invite.secret().id(), fixed().secret().id());
        assert_eq!(invite.expires_unix_s(), 1_800_000_000);
    }
}

#[test]
fn every_single_wrong_letter_is_a_typing_error() {
    let line = fixed().to_line();
    for place in PREFIX.len()..line.len() {
        for letter in ('a'..='z').chain('2'..='7') {
            let mut wrong: Vec<char> = line.chars().collect();
            if std::mem::replace(&mut wrong[place], letter) == letter {
                continue;
            }
            let wrong: String = wrong.into_iter().collect();
            let refused = wrong.parse::<Invite>().unwrap_err();
            assert!(matches!(refused, InviteError::Typo), "{refused}");
        }
    }
}

#[test]
fn what_is_no_invite_is_told_apart() {
    let line = fixed().to_line();
    for length in 3..line.len() {
        let refused = line[..length].parse::<Invite>().unwrap_err();
        assert!(matches!(refused, InviteError::CutShort { letters } if letters == length), "{refused}");
    }
    for text in ["", "b", "bh", "hello", "bx1aaaa", "b\u{fc}1", "\u{1F4E2}bh1"] {
        assert!(matches!(text.parse::<Invite>(), Err(InviteError::NotAnInvite)), "{text}");
    }
    assert!(matches!(format!("{}a", *line).parse::<Invite>(), Err(InviteError::TooLong { .. })));
    assert!(matches!(line.replace("bh1", "bh2").parse::<Invite>(), Err(InviteError::FromTheFuture(2))));
    let gap = format!("{} {}", &line[..9], &line[9..]);
    assert!(matches!(gap.parse::<Invite>(), Err(InviteError::Character { found: ' ', place: 10 })));
    let mut future = BASE32_NOPAD.decode(line[3..].to_uppercase().as_bytes()).unwrap();
    future.truncate(CHECKED_BYTES);
    future[0] = 9;
    future.extend_from_slice(&checksum(&future.clone()));
    let future = format!("bh1{}", BASE32_NOPAD.encode(&future));
    assert!(matches!(future.parse::<Invite>(), Err(InviteError::FromTheFuture(9))));
}

#[test]
fn no_error_quotes_the_invite() {
    let line = fixed().to_line();
    let wrong = [line[..60].to_owned(), format!("{}a", *line), line.replace("bh1a", "bh1b")];
    for wrong in wrong {
        let said = wrong.parse::<Invite>().unwrap_err();
        let said = format!("{said} {said:?}");
        assert!(!said.contains("eirceirc"), "{said}");
    }
}

#[test]
fn several_stations_may_use_an_invite_until_it_expires() {
    let (_home, _folder, announcer, book) = fixture();
    let invite = book.issue(&announcer, Duration::from_secs(3600), 10_000).unwrap();
    let id = invite.secret().id();
    for now in [10_000, 10_001, 13_599, 9_999] {
        assert!(book.accept(id, now).unwrap().is_some(), "{now}");
    }
    for now in [13_600, 20_000, 10_000 + 315_576_000] {
        assert!(book.accept(id, now).unwrap().is_none(), "{now}");
        assert!(book.current(&announcer, now).unwrap().is_none());
    }
    assert!(book.accept(id, 10_000 - 1_000).unwrap().is_none(), "made by a clock that was set back since");
}

#[test]
fn printing_it_again_gives_the_same_line_and_a_new_one_retires_it() {
    let (_home, folder, announcer, book) = fixture();
    assert!(book.current(&announcer, 5).unwrap().is_none());
    let old = book.issue(&announcer, DEFAULT_VALIDITY, 5).unwrap();
    assert_eq!(*book.current(&announcer, 6).unwrap().unwrap().to_line(), *old.to_line());
    let new = InviteBook::new(&folder).issue(&announcer, DEFAULT_VALIDITY, 7).unwrap();
    assert_ne!(*new.to_line(), *old.to_line());
    assert!(book.accept(old.secret().id(), 8).unwrap().is_none());
    assert!(book.accept(new.secret().id(), 8).unwrap().is_some());
    let read: Invite = new.to_line().parse().unwrap();
    assert_eq!(read.announcer(), announcer.noise().public());
    book.retire().unwrap();
    assert!(book.accept(new.secret().id(), 8).unwrap().is_none());
    assert!(book.current(&announcer, 8).unwrap().is_none());
}

#[test]
fn validities_are_read() {
    let minutes = |minutes: u64| Duration::from_secs(minutes * 60);
    for (text, validity) in [
        ("30m", minutes(30)),
        ("12h", minutes(720)),
        ("7d", minutes(10_080)),
        (" 1m ", minutes(1)),
        ("365d", MAX_VALIDITY),
    ] {
        assert_eq!(parse_validity(text).unwrap(), validity);
    }
    for wrong in [
        "",
        "m",
        "0m",
        "30",
        "30s",
        "-1h",
        "+1h",
        "1.5h",
        "366d",
        "99999999999999999999d",
        "18446744073709551615d",
        "3\u{fc}",
        "1 h",
    ] {
        assert!(matches!(parse_validity(wrong), Err(InviteError::Validity(_))), "{wrong}");
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "\\PC*", tail in "[a-z2-7]{0,120}") {
        let _ = text.parse::<Invite>();
        let _ = format!("bh1{tail}").parse::<Invite>();
        let _ = parse_validity(&text);
    }

    #[test]
    fn every_invite_comes_back(key: [u8; 32], secret: [u8; 16], expires in 0..1_u64 << 40) {
        let invite = Invite {
            announcer: NoisePublicKey::from_bytes(key),
            secret: InviteSecret(Zeroizing::new(secret)),
            expires_unix_s: expires,
        };
        let read: Invite = invite.to_line().parse().unwrap();
        proptest::prop_assert_eq!(read.announcer(), invite.announcer());
        proptest::prop_assert_eq!(*read.secret.0, secret);
        proptest::prop_assert_eq!(read.expires_unix_s, expires);
    }
}

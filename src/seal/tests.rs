#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use super::*;

const NOW_MS: u64 = 1_800_000_000_000;

struct Fixture {
    announcer: AnnouncerKeys,
    asked: Instant,
    time: AnnouncerTime,
    zones: Vec<String>,
}

fn fixture() -> Fixture {
    let announcer = AnnouncerKeys::generate().unwrap();
    let asked = Instant::now();
    let nonce = TimeNonce::generate().unwrap();
    let statement = TimeStatement::sign(&announcer, nonce, NOW_MS);
    let heard = asked + Duration::from_millis(10);
    let time = AnnouncerTime::from_statement(&announcer.id(), nonce, &statement, asked, heard).unwrap();
    Fixture { announcer, asked, time, zones: vec!["east".into()] }
}

impl Fixture {
    fn admission(&self, heard: Option<Mark>) -> Admission<'_> {
        Admission { announcer: self.announcer.id(), zones: &self.zones, time: self.time, heard }
    }

    fn claim<'a>(&self, header: &'a [u8], signature: &'a SignatureBytes) -> Claim<'a> {
        Claim {
            header,
            signature,
            announcer: self.announcer.id(),
            epoch: 5,
            sequence: 9,
            created_unix_ms: NOW_MS,
            expires_unix_ms: NOW_MS + 60_000,
            zones: &[],
            format: Some(Format { wav_bytes: 44 + 96_000, rate_hz: 48_000 }),
        }
    }
}

#[test]
fn a_genuine_fresh_clip_is_admitted() {
    let fixture = fixture();
    let signature = sign(&fixture.announcer, b"header");
    let claim = fixture.claim(b"header", &signature);
    fixture.admission(None).judge(&claim, fixture.asked).unwrap();
    fixture.admission(None).judge(&claim, fixture.asked + Duration::from_secs(59)).unwrap();
    let east = ["west".to_string(), "east".to_string()];
    fixture.admission(None).judge(&Claim { zones: &east, ..claim }, fixture.asked).unwrap();
}

#[test]
fn the_signature_binds_announcer_domain_and_every_bit() {
    let fixture = fixture();
    let (id, header) = (fixture.announcer.id(), b"header of a clip".to_vec());
    let signature = sign(&fixture.announcer, &header);
    assert!(verify(&id, &header, &signature));
    assert!(!verify(&AnnouncerKeys::generate().unwrap().id(), &header, &signature));
    for bit in 0..header.len() * 8 {
        let mut flipped = header.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!verify(&id, &flipped, &signature));
    }
    for bit in 0..512 {
        let mut flipped = signature;
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!verify(&id, &header, &flipped));
    }
    assert!(!verify(&id, &header[..15], &signature));
    let nonce = TimeNonce([7; 16]);
    let statement = TimeStatement::sign(&fixture.announcer, nonce, NOW_MS);
    let stated = [&nonce.0[..], &NOW_MS.to_be_bytes()].concat();
    assert!(!verify(&id, &stated, &statement.signature), "a statement of time is no header");
    assert!(
        !TimeStatement { unix_ms: NOW_MS, signature: sign(&fixture.announcer, &stated) }.is_by(&id, nonce)
    );
}

/// The neutral point as key and as R, with S = 0, satisfies the plain equation for every message.
#[test]
fn weak_keys_are_refused() {
    let mut neutral = [0; 32];
    neutral[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    for message in 0..100_u32 {
        assert!(!verify(&AnnouncerId::from_bytes(neutral), &message.to_be_bytes(), &signature));
    }
}

#[test]
fn of_10_000_forged_headers_none_is_admitted() {
    let fixture = fixture();
    let stolen: Vec<_> = (0_u8..16).map(|n| (vec![n; 40], sign(&fixture.announcer, &[n; 40]))).collect();
    let mut admitted = 0;
    for attempt in 0_u32..10_000 {
        let noise: [u8; 64] = random().unwrap();
        let (header, genuine) = &stolen[attempt as usize % stolen.len()];
        let (mut header, mut signature) = (header.clone(), *genuine);
        let mut announcer = fixture.announcer.id();
        match attempt % 5 {
            0 => signature = noise,
            1 => header[attempt as usize % 40] ^= 1 << (attempt % 8),
            2 => header.push(attempt as u8),
            3 => {
                let rogue = AnnouncerKeys::generate().unwrap();
                signature = sign(&rogue, &header);
                if attempt % 2 == 0 {
                    announcer = rogue.id();
                }
            }
            _ => signature[32..].copy_from_slice(&noise[32..]),
        }
        let claim = Claim { announcer, ..fixture.claim(&header, &signature) };
        match fixture.admission(None).judge(&claim, fixture.asked) {
            Err(Refusal::Signature | Refusal::Announcer) => {}
            Err(other) => panic!("{other}"),
            Ok(()) => admitted += 1,
        }
    }
    assert_eq!(admitted, 0);
}

/// Everything is wrong with a claim. As the faults are fixed in the order of the checks, each error gives way to the
/// next.
#[test]
fn checks_come_in_the_promised_order() {
    let fixture = fixture();
    let heard = Some(Mark { epoch: 5, sequence: 9, finished: true });
    let now = fixture.asked + Duration::from_secs(100);
    let (west, large) = (["west".to_string()], vec![0; MAX_HEADER_BYTES + 1]);
    let (genuine, forged) = (sign(&fixture.announcer, b"header"), [1; 64]);
    let rogue = AnnouncerKeys::generate().unwrap().id();
    let good = fixture.claim(b"header", &genuine);
    let mut claim = Claim {
        header: &large,
        signature: &forged,
        announcer: rogue,
        zones: &west,
        format: Some(Format { wav_bytes: 3, rate_hz: 48_000 }),
        ..good
    };
    let refusal = |claim: &Claim<'_>, now| fixture.admission(heard).judge(claim, now).unwrap_err();
    assert!(matches!(refusal(&claim, now), Refusal::HeaderSize(_)));
    claim.header = good.header;
    assert!(matches!(refusal(&claim, now), Refusal::Format(_)));
    claim.format = good.format;
    assert!(matches!(refusal(&claim, now), Refusal::Announcer));
    claim.announcer = good.announcer;
    assert!(matches!(refusal(&claim, now), Refusal::Signature));
    claim.signature = good.signature;
    assert!(matches!(refusal(&claim, now), Refusal::Zone));
    claim.zones = good.zones;
    assert!(matches!(refusal(&claim, now), Refusal::Expired { late_ms: 40_000 }));
    assert!(matches!(refusal(&claim, fixture.asked), Refusal::Replay));
    fixture.admission(None).judge(&claim, fixture.asked).unwrap();
}

#[test]
fn what_was_heard_is_refused_until_a_later_one_comes() {
    let fixture = fixture();
    let signature = sign(&fixture.announcer, b"header");
    let cases = [
        ((5, 9, false), true),
        ((5, 9, true), false),
        ((5, 8, true), true),
        ((5, 8, false), true),
        ((5, 10, false), false),
        ((6, 0, false), false),
        ((4, 99, true), true),
    ];
    for ((epoch, sequence, finished), admitted) in cases {
        let heard = Some(Mark { epoch, sequence, finished });
        let judged = fixture.admission(heard).judge(&fixture.claim(b"header", &signature), fixture.asked);
        assert_eq!(judged.is_ok(), admitted, "{heard:?}");
        assert!(admitted || matches!(judged, Err(Refusal::Replay)));
    }
}

#[test]
fn freshness_is_judged_by_the_announcers_time() {
    let fixture = fixture();
    let signature = sign(&fixture.announcer, b"header");
    let claim = fixture.claim(b"header", &signature);
    let after = |seconds| fixture.asked + Duration::from_secs(seconds);
    let judge = |claim: &Claim<'_>, seconds| fixture.admission(None).judge(claim, after(seconds));
    assert!(judge(&claim, 59).is_ok());
    for late in [60, 61, 3600, 24 * 3600, 315_576_000] {
        assert!(matches!(judge(&claim, late), Err(Refusal::Expired { .. })));
    }
    let backwards = Claim { expires_unix_ms: NOW_MS + 500, created_unix_ms: NOW_MS + 1_000, ..claim };
    assert!(matches!(judge(&backwards, 0), Err(Refusal::Expired { .. })));
    let dated = |ahead_ms| Claim {
        created_unix_ms: NOW_MS + ahead_ms,
        expires_unix_ms: NOW_MS + ahead_ms + 60_000,
        ..claim
    };
    assert!(judge(&dated(1_999), 0).is_ok());
    assert!(matches!(judge(&dated(2_001), 0), Err(Refusal::NotYet { early_ms: 2_001 })));
    assert!(judge(&dated(86_400_000 + 9_000), 86_400).is_ok(), "two clocks may drift over a day");
    let extreme = Claim { created_unix_ms: u64::MAX, expires_unix_ms: u64::MAX, ..claim };
    assert!(matches!(judge(&extreme, 0), Err(Refusal::NotYet { .. })));
    let eternal = Claim { created_unix_ms: 0, expires_unix_ms: u64::MAX, ..claim };
    assert!(judge(&eternal, 0).is_ok());
}

/// The station's wall clock is never read; the announcer's may be ten years off in either direction.
#[test]
fn an_announcer_whose_clock_is_years_off_is_heard() {
    let announcer = AnnouncerKeys::generate().unwrap();
    let ten_years_ms = 315_576_000_000;
    for unix_ms in [NOW_MS - ten_years_ms, NOW_MS + ten_years_ms, 0] {
        let (asked, nonce) = (Instant::now(), TimeNonce::generate().unwrap());
        let statement = TimeStatement::sign(&announcer, nonce, unix_ms);
        let time = AnnouncerTime::from_statement(&announcer.id(), nonce, &statement, asked, asked).unwrap();
        let fixture = Fixture { announcer: announcer.clone(), asked, time, zones: Vec::new() };
        let signature = sign(&announcer, b"header");
        let claim = fixture.claim(b"header", &signature);
        let claim = Claim { created_unix_ms: unix_ms, expires_unix_ms: unix_ms + 60_000, ..claim };
        fixture.admission(None).judge(&claim, asked).unwrap();
        let late = fixture.admission(None).judge(&claim, asked + Duration::from_secs(60));
        assert!(matches!(late, Err(Refusal::Expired { .. })));
    }
}

#[test]
fn a_statement_of_time_cannot_be_replayed_forged_or_held_back() {
    let announcer = AnnouncerKeys::generate().unwrap();
    let rogue = AnnouncerKeys::generate().unwrap();
    let (nonce, asked) = (TimeNonce::generate().unwrap(), Instant::now());
    let genuine = TimeStatement::sign(&announcer, nonce, NOW_MS);
    let id = announcer.id();
    let take = |statement: &TimeStatement, nonce, delay| {
        AnnouncerTime::from_statement(&id, nonce, statement, asked, asked + delay).map(|_| ())
    };
    assert_eq!(take(&genuine, nonce, MAX_ROUND_TRIP), Ok(()));
    assert_eq!(take(&genuine, TimeNonce::generate().unwrap(), Duration::ZERO), Err(TimeError::NotGenuine));
    let altered = TimeStatement { unix_ms: NOW_MS - 1, ..genuine };
    assert_eq!(take(&altered, nonce, Duration::ZERO), Err(TimeError::NotGenuine));
    let forged = TimeStatement::sign(&rogue, nonce, NOW_MS);
    assert_eq!(take(&forged, nonce, Duration::ZERO), Err(TimeError::NotGenuine));
    let late = MAX_ROUND_TRIP + Duration::from_millis(1);
    assert_eq!(take(&genuine, nonce, late), Err(TimeError::TooSlow(late)));
    let time = AnnouncerTime::from_statement(&id, nonce, &genuine, asked, asked + MAX_ROUND_TRIP).unwrap();
    assert_eq!(
        time.latest_unix_ms(asked + MAX_ROUND_TRIP),
        NOW_MS + 3_000,
        "a delay makes clips older, never younger"
    );
}

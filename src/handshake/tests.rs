#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use data_encoding::HEXLOWER;
use serde::Deserialize;
use zeroize::Zeroizing;

use super::*;
use crate::invite::{DEFAULT_VALIDITY, InviteBook};
use crate::keys::{AnnouncerKeys, StateFolder};

struct Site {
    _home: tempfile::TempDir,
    announcer: AnnouncerKeys,
    station: NoiseKeys,
    invite: Invite,
}

fn site() -> Site {
    let home = tempfile::tempdir().unwrap();
    let folder = StateFolder::open(Some(&home.path().join("state"))).unwrap();
    let announcer = AnnouncerKeys::load_or_create(&folder).unwrap();
    let invite = InviteBook::new(&folder).issue(&announcer, DEFAULT_VALIDITY, 1_000).unwrap();
    Site { _home: home, announcer, station: NoiseKeys::generate().unwrap(), invite }
}

/// How a relay tampers with the three messages.
type Meddle<'a> = &'a dyn Fn(usize, &mut [u8]);
const FAITHFULLY: Meddle<'_> = &|_, _| {};

impl Site {
    fn contact(&self, invited: bool) -> Contact<'_> {
        let pinned = Contact::Pinned(self.announcer.noise().public());
        if invited { Contact::Invite(&self.invite) } else { pinned }
    }

    fn secret(&self, id: InviteId) -> Option<InviteSecret> {
        Some(self.invite.secret().clone()).filter(|secret| secret.id() == id)
    }

    fn meet(&self, invited: bool, meddle: Meddle<'_>) -> Result<(Transport, Transport), HandshakeError> {
        let (initiator, mut message1) = Initiator::start(&self.station, self.contact(invited), "host:1")?;
        meddle(1, &mut message1);
        let (responder, mut message2) =
            Responder::answer(self.announcer.noise(), &message1, |id| self.secret(id))?;
        meddle(2, &mut message2);
        let (mut message3, station) = initiator.answer(&message2)?;
        meddle(3, &mut message3);
        let announcer = responder.finish(&message3, |key| *key == self.station.public())?;
        Ok((station, announcer))
    }
}

impl NoiseKeys {
    fn fixed(hex: &str) -> Self {
        Self::from_secret(Zeroizing::new(unhex(hex).try_into().unwrap())).unwrap()
    }
}

fn unhex(hex: &str) -> Vec<u8> {
    HEXLOWER.decode(hex.as_bytes()).unwrap()
}

fn say(from: &mut Transport, to: &mut Transport, words: &[u8]) {
    let (mut sealed, mut plain) = (vec![0; words.len() + TAG_BYTES], vec![0; words.len() + TAG_BYTES]);
    let sealed = from.sealer.seal(words, &mut sealed).unwrap();
    assert_eq!(sealed.len(), words.len() + TAG_BYTES);
    assert_eq!(to.opener.open(sealed, &mut plain).unwrap(), words);
}

#[test]
fn both_ends_meet_and_know_each_other() {
    let site = site();
    for invited in [false, true] {
        let (mut station, mut announcer) = site.meet(invited, FAITHFULLY).unwrap();
        assert_eq!(station.peer, site.announcer.noise().public());
        assert_eq!(announcer.peer, site.station.public());
        assert_eq!(station.hash, announcer.hash);
        let id = site.invite.secret().id();
        assert_eq!(announcer.mode, if invited { Mode::Invited(id) } else { Mode::Known });
        for length in [0, 1, 1000, MAX_MESSAGE_BYTES - TAG_BYTES] {
            say(&mut station, &mut announcer, &vec![1; length]);
            say(&mut announcer, &mut station, &vec![2; length]);
        }
        let (other, _) = site.meet(invited, FAITHFULLY).unwrap();
        assert_ne!(other.hash, station.hash);
    }
}

#[test]
fn every_flipped_bit_of_every_message_ends_the_handshake() {
    let site = site();
    for invited in [false, true] {
        for (message, bytes) in [(1, MESSAGE1_BYTES), (2, MESSAGE2_BYTES), (3, MESSAGE3_BYTES)] {
            for bit in 0..bytes * 8 {
                let flip: Meddle<'_> = &|number, bytes| {
                    if number == message {
                        bytes[bit / 8] ^= 1 << (bit % 8);
                    }
                };
                let met = site.meet(invited, flip);
                // X25519 ignores the top bit of a key (RFC 7748); Noise hashes the key as sent.
                assert!(met.is_err(), "message {message} bit {bit} invited {invited}");
            }
        }
    }
}

#[test]
fn messages_of_another_handshake_do_not_fit() {
    let site = site();
    for invited in [false, true] {
        let recorded = std::cell::RefCell::new(vec![Vec::new(); 4]);
        let record: Meddle<'_> = &|number, bytes| recorded.borrow_mut()[number] = bytes.to_vec();
        site.meet(invited, record).unwrap();
        for replayed in [1, 2, 3] {
            let replay: Meddle<'_> = &|number, bytes| {
                if number == replayed {
                    bytes.copy_from_slice(&recorded.borrow()[number]);
                }
            };
            assert!(site.meet(invited, replay).is_err(), "message {replayed}");
        }
    }
}

#[test]
fn a_rogue_announcer_is_refused_before_the_station_shows_itself() {
    let site = site();
    let rogue = NoiseKeys::generate().unwrap();
    for invited in [false, true] {
        let (initiator, message1) = Initiator::start(&site.station, site.contact(invited), "host:1").unwrap();
        // Even a rogue that knows the invite's secret, as every station that joined with it does.
        let (_, message2) = Responder::answer(&rogue, &message1, |id| site.secret(id)).unwrap();
        let refused = initiator.answer(&message2).unwrap_err();
        match (invited, &refused) {
            (true, HandshakeError::NotTheInviter { .. }) => {}
            (false, HandshakeError::AnnouncerChanged(changed)) => {
                assert_eq!(changed.pinned, site.announcer.noise().public().fingerprint());
                assert_eq!(changed.found, rogue.public().fingerprint());
            }
            (_, other) => panic!("{other}"),
        }
        assert!(refused.to_string().contains("host:1"), "{refused}");
    }
}

#[test]
fn a_man_in_the_middle_with_keys_of_his_own_gets_neither_side() {
    let site = site();
    let middle = NoiseKeys::generate().unwrap();
    let (station, from_station) = Initiator::start(&site.station, site.contact(false), "host:1").unwrap();
    let (_, to_station) = Responder::answer(&middle, &from_station, |_| None).unwrap();
    assert!(matches!(station.answer(&to_station), Err(HandshakeError::AnnouncerChanged(_))));
    let (towards, message1) = Initiator::start(&middle, site.contact(false), "host:1").unwrap();
    let (announcer, message2) = Responder::answer(site.announcer.noise(), &message1, |_| None).unwrap();
    let (message3, _) = towards.answer(&message2).unwrap();
    let known = |key: &NoisePublicKey| *key == site.station.public();
    let refused = announcer.finish(&message3, known).unwrap_err();
    assert!(matches!(refused, HandshakeError::UnknownStation(key) if key == middle.public()));
}

#[test]
fn a_wrong_or_unknown_invite_fails_in_message_3_and_not_before() {
    let site = site();
    let wrong = |_| Some(InviteSecret::generate().unwrap());
    let unknown = |_| None;
    let secrets: [&dyn Fn(InviteId) -> Option<InviteSecret>; 2] = [&wrong, &unknown];
    for secret in secrets {
        let (station, message1) = Initiator::start(&site.station, site.contact(true), "host:1").unwrap();
        let (announcer, message2) = Responder::answer(site.announcer.noise(), &message1, secret).unwrap();
        let (message3, mut transport) = station.answer(&message2).unwrap();
        assert!(matches!(announcer.finish(&message3, |_| true), Err(HandshakeError::NotGenuine(_))));
        assert!(transport.sealer.seal(b"hello", &mut [0; 64]).is_ok(), "sealed, and nobody can open it");
    }
}

#[test]
fn known_and_invited_cannot_be_turned_into_each_other() {
    let site = site();
    let (station, mut message1) = Initiator::start(&site.station, site.contact(true), "host:1").unwrap();
    message1[..OPENING_BYTES].copy_from_slice(&Mode::Known.opening());
    let (_, message2) = Responder::answer(site.announcer.noise(), &message1, |_| None).unwrap();
    assert!(matches!(station.answer(&message2), Err(HandshakeError::NotGenuine(_))));
}

#[test]
fn other_protocols_and_versions_are_told_apart() {
    let site = site();
    let answer = |message1: &[u8; MESSAGE1_BYTES]| {
        Responder::answer(site.announcer.noise(), message1, |_| None).map(|_| ()).unwrap_err()
    };
    let (_, good) = Initiator::start(&site.station, site.contact(false), "host:1").unwrap();
    let mut newer = good;
    newer[8] = 2;
    assert!(matches!(answer(&newer), HandshakeError::Version(2)));
    let mut http = good;
    http[..16].copy_from_slice(b"GET / HTTP/1.1\r\n");
    assert!(matches!(answer(&http), HandshakeError::NotBullhorn));
    let mut mode = good;
    mode[9] = 2;
    assert!(matches!(answer(&mode), HandshakeError::NotBullhorn));
}

/// How a relay tampers with the messages sent.
type Attack<'a> = &'a dyn Fn(&mut Vec<Vec<u8>>);

#[test]
fn transport_messages_cannot_be_altered_reordered_repeated_reflected_or_cut() {
    let site = site();
    let attacks: [Attack<'_>; 6] = [
        &|sent| sent.swap(0, 1),
        &|sent| sent.insert(1, sent[0].clone()),
        &|sent| drop(sent.remove(0)),
        &|sent| sent[0].truncate(20),
        &|sent| sent[0].clear(),
        &|sent| sent[0].push(0),
    ];
    let meet = || {
        let (mut station, announcer) = site.meet(false, FAITHFULLY).unwrap();
        let mut seal = |words: &[u8]| {
            let mut sealed = [0; 64];
            station.sealer.seal(words, &mut sealed).unwrap().to_vec()
        };
        let sent = [b"first", b"other", b"third"].map(|words| seal(words)).to_vec();
        (station, announcer, sent)
    };
    let open_all = |opener: &mut Opener, sent: &[Vec<u8>]| {
        sent.iter().try_for_each(|sealed| opener.open(sealed, &mut [0; 64]).map(|_| ()))
    };
    for attack in attacks {
        let (_, mut announcer, mut sent) = meet();
        attack(&mut sent);
        assert!(matches!(open_all(&mut announcer.opener, &sent), Err(HandshakeError::NotGenuine(_))));
        assert!(matches!(open_all(&mut announcer.opener, &sent), Err(HandshakeError::Broken)));
    }
    let (mut station, _, sent) = meet();
    assert!(open_all(&mut station.opener, &sent).is_err(), "reflected");
    for bit in 0..21 * 8 {
        let (_, mut announcer, mut sent) = meet();
        sent[0][bit / 8] ^= 1 << (bit % 8);
        assert!(open_all(&mut announcer.opener, &sent).is_err());
    }
    let (_, mut announcer, sent) = meet();
    open_all(&mut announcer.opener, &sent).unwrap();
}

#[test]
fn sizes_and_counts_have_ends() {
    let site = site();
    let (mut station, mut announcer) = site.meet(false, FAITHFULLY).unwrap();
    let mut room = vec![0; MAX_MESSAGE_BYTES + 100];
    let large = vec![0; MAX_MESSAGE_BYTES - TAG_BYTES + 1];
    assert!(matches!(station.sealer.seal(&large, &mut room), Err(HandshakeError::MessageSize(65_536))));
    assert!(matches!(station.sealer.seal(b"words", &mut [0; 20]), Err(HandshakeError::MessageSize(21))));
    let refused = announcer.opener.open(&vec![0; MAX_MESSAGE_BYTES + 1], &mut room);
    assert!(matches!(refused, Err(HandshakeError::MessageSize(65_536))));
    assert!(matches!(announcer.opener.open(&[0; 40], &mut [0; 39]), Err(HandshakeError::MessageSize(40))));
    say(&mut station, &mut announcer, b"still in step");
    station.sealer.next_for_test(u64::MAX - 1);
    announcer.opener.next_for_test(u64::MAX - 1);
    say(&mut station, &mut announcer, b"the last one");
    assert!(matches!(station.sealer.seal(b"x", &mut room), Err(HandshakeError::Exhausted)));
    assert!(matches!(announcer.opener.open(&[0; 17], &mut room), Err(HandshakeError::Exhausted)));
}

#[test]
fn the_halves_live_on_two_threads() {
    let site = site();
    let (station, mut announcer) = site.meet(false, FAITHFULLY).unwrap();
    let Transport { mut sealer, mut opener, .. } = station;
    let mut sealed = [0; 64];
    let said = announcer.sealer.seal(b"page", &mut sealed).unwrap().to_vec();
    std::thread::scope(|scope| {
        scope.spawn(move || sealer.seal(b"receipt", &mut [0; 64]).map(|_| ()).unwrap());
        scope.spawn(move || assert_eq!(opener.open(&said, &mut [0; 64]).unwrap(), b"page"));
    });
}

#[derive(Deserialize)]
struct Vectors {
    vectors: Vec<Vector>,
}

#[derive(Deserialize)]
struct Vector {
    protocol_name: String,
    init_prologue: String,
    #[serde(default)]
    init_psks: Vec<String>,
    init_static: String,
    init_ephemeral: String,
    resp_static: String,
    resp_ephemeral: String,
    handshake_hash: String,
    messages: Vec<VectorMessage>,
}

#[derive(Deserialize)]
struct VectorMessage {
    payload: String,
    ciphertext: String,
}

/// The two patterns, as this build's library implements them, against the vectors of another implementation.
#[test]
fn the_patterns_match_the_published_vectors() {
    let vectors: Vectors = serde_json::from_str(include_str!("../../tests/vectors/cacophony.json")).unwrap();
    assert_eq!(
        vectors.vectors.iter().map(|v| v.protocol_name.as_str()).collect::<Vec<_>>(),
        [KNOWN, INVITED]
    );
    for vector in vectors.vectors {
        let psks: Vec<[u8; 32]> = vector.init_psks.iter().map(|psk| unhex(psk).try_into().unwrap()).collect();
        let prologue = unhex(&vector.init_prologue);
        let keys = [&vector.init_static, &vector.resp_static].map(|hex| NoiseKeys::fixed(hex));
        let ephemerals: [[u8; 32]; 2] =
            [&vector.init_ephemeral, &vector.resp_ephemeral].map(|hex| unhex(hex).try_into().unwrap());
        let mode = if psks.is_empty() { Mode::Known } else { Mode::Invited(InviteId([0; 8])) };
        let build =
            |end: usize| builder(mode, &prologue, &keys[end], psks.first(), Some(&ephemerals[end])).unwrap();
        let mut ends = [build(0).build_initiator().unwrap(), build(1).build_responder().unwrap()];
        let (handshake, transport) = vector.messages.split_at(3);
        for (number, message) in handshake.iter().enumerate() {
            let (mut sealed, mut plain) = (vec![0; 500], vec![0; 500]);
            let written = ends[number % 2].write_message(&unhex(&message.payload), &mut sealed).unwrap();
            assert_eq!(HEXLOWER.encode(&sealed[..written]), message.ciphertext);
            let read = ends[(number + 1) % 2].read_message(&sealed[..written], &mut plain).unwrap();
            assert_eq!(HEXLOWER.encode(&plain[..read]), message.payload);
        }
        let [mut station, mut announcer] = ends.map(|end| self::transport(end, mode).unwrap());
        assert_eq!(HEXLOWER.encode(&station.hash), vector.handshake_hash);
        assert!(!transport.is_empty());
        for (number, message) in transport.iter().enumerate() {
            // The vectors continue in turn: the responder sends the fourth message.
            let (from, to) = match number % 2 {
                0 => (&mut announcer, &mut station),
                _ => (&mut station, &mut announcer),
            };
            let (mut sealed, mut plain) = ([0; 500], [0; 500]);
            let sealed = from.sealer.seal(&unhex(&message.payload), &mut sealed).unwrap();
            assert_eq!(HEXLOWER.encode(sealed), message.ciphertext);
            assert_eq!(HEXLOWER.encode(to.opener.open(sealed, &mut plain).unwrap()), message.payload);
        }
    }
}

/// This protocol's own bytes, including the opening: a change to any byte is a change of version.
#[test]
fn the_handshake_matches_its_committed_vectors() {
    let line = include_str!("../../tests/vectors/invite.txt");
    let invite: Invite = line.parse().unwrap();
    let station = NoiseKeys::fixed(&"a1".repeat(32));
    let announcer = NoiseKeys::fixed(&"b2".repeat(32));
    assert_eq!(invite.announcer(), announcer.public());
    let mut bytes = String::new();
    for contact in [Contact::Pinned(announcer.public()), Contact::Invite(&invite)] {
        let (initiator, message1) = Initiator::begin(&station, contact, "host:1", Some(&[0xc3; 32])).unwrap();
        let secret = |_| Some(invite.secret().clone());
        let (responder, message2) =
            Responder::begin(&announcer, &message1, secret, Some(&[0xd4; 32])).unwrap();
        let (message3, mut to) = initiator.answer(&message2).unwrap();
        let mut from = responder.finish(&message3, |key| *key == station.public()).unwrap();
        let (mut there, mut back) = ([0; 64], [0; 64]);
        let said: [&[u8]; 5] = [
            &message1,
            &message2,
            &message3,
            to.sealer.seal(b"station speaks", &mut there).unwrap(),
            from.sealer.seal(b"announcer speaks", &mut back).unwrap(),
        ];
        said.iter().for_each(|message| bytes += &(HEXLOWER.encode(message) + "\n"));
    }
    println!("{bytes}");
    assert_eq!(bytes, include_str!("../../tests/vectors/handshake.txt"));
}

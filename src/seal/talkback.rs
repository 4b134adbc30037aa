//! The checks that make a talkback authentic: which station spoke, to whom, when, and that it was not heard before.
//!
//! ```text
//! header signature = Ed25519( "bullhorn talkback header v1" ‖ 0 ‖ station's key 32 ‖ header as sent )
//! ```
//!
//! The domain and the key differ from an announcement's, so that neither is ever taken for the other.

use std::time::Duration;

use super::{SignatureBytes, message, millis, verify_message};
use crate::clip::ClipError;
use crate::keys::{AnnouncerId, StationId, StationKeys, TalkedMark};
use crate::wire::{TALKBACK_LIFE, TalkbackHeader};

const HEADER_DOMAIN: &[u8] = b"bullhorn talkback header v1\0";
/// How far ahead of the announcer's clock a talkback may be dated: the possible error of a station's estimate of that
/// clock.
const CREATED_SLACK: Duration = Duration::from_secs(5);

/// Signs a talkback's header, exactly as it is sent.
pub fn sign(station: &StationKeys, header: &[u8]) -> SignatureBytes {
    station.sign(&message(HEADER_DOMAIN, station.id().as_bytes(), &[header]))
}

/// Whether a station signed these bytes as a talkback's header.
pub fn verify(station: &StationId, header: &[u8], signature: &SignatureBytes) -> bool {
    verify_message(station.as_bytes(), &message(HEADER_DOMAIN, station.as_bytes(), &[header]), signature)
}

/// Why an announcer does not accept a talkback.
#[derive(Debug, thiserror::Error)]
pub enum TalkbackRefusal {
    /// No talkback has this size or rate.
    #[error(transparent)]
    Format(#[from] ClipError),
    /// It has another name than the station's.
    #[error("it is said in the name of {0}, which is another station's")]
    Station(String),
    /// It is for another announcer.
    #[error("it is for another announcer")]
    Announcer,
    /// It is not signed by the station.
    #[error("its signature is not the station's")]
    Signature,
    /// It has expired, or expires before its own date.
    #[error("it expired {late_ms} ms ago")]
    Expired {
        /// How long ago, by the announcer's clock.
        late_ms: u64,
    },
    /// It claims to be valid for longer than any talkback may be.
    #[error("it claims to be good for {life_ms} ms, and no talkback is for more than {}", TALKBACK_LIFE.as_millis())]
    Life {
        /// The time from its date to its expiry.
        life_ms: u64,
    },
    /// It is dated later than the announcer's clock.
    #[error("it is dated {early_ms} ms ahead of the announcer's clock")]
    NotYet {
        /// How far ahead.
        early_ms: u64,
    },
    /// It, or a later one, was heard already.
    #[error("it was heard before, or is older than one that was")]
    Replay,
}

/// Proves that the station of that name recorded a talkback for that announcer. Checks in this order: size, station,
/// announcer, signature. Returns the key that signed it, which is not yet compared with the pinned one.
///
/// # Errors
/// The first [`TalkbackRefusal`].
pub fn prove(
    header: &TalkbackHeader,
    encoded: &[u8],
    signature: &[u8],
    name: &str,
    announcer: &AnnouncerId,
) -> Result<StationId, TalkbackRefusal> {
    header.format.check()?;
    if header.name != name {
        return Err(TalkbackRefusal::Station(header.name.clone()));
    }
    if header.announcer != *announcer.as_bytes() {
        return Err(TalkbackRefusal::Announcer);
    }
    let station = StationId::from_bytes(header.station);
    let signature = signature.try_into().map_err(|_| TalkbackRefusal::Signature)?;
    if !verify(&station, encoded, signature) {
        return Err(TalkbackRefusal::Signature);
    }
    Ok(station)
}

/// Whether a proven talkback may be accepted now, by the announcer's clock and the last talkback of that station.
/// Checks freshness first, then sequence.
///
/// # Errors
/// The first [`TalkbackRefusal`].
pub fn admit(
    header: &TalkbackHeader,
    now_unix_ms: u64,
    last: Option<TalkedMark>,
) -> Result<(), TalkbackRefusal> {
    let early_ms = header.created_unix_ms.saturating_sub(now_unix_ms);
    if early_ms > millis(CREATED_SLACK) {
        return Err(TalkbackRefusal::NotYet { early_ms });
    }
    if now_unix_ms >= header.expires_unix_ms || header.expires_unix_ms < header.created_unix_ms {
        return Err(TalkbackRefusal::Expired { late_ms: now_unix_ms.saturating_sub(header.expires_unix_ms) });
    }
    let life_ms = header.expires_unix_ms - header.created_unix_ms;
    if life_ms > millis(TALKBACK_LIFE) {
        return Err(TalkbackRefusal::Life { life_ms });
    }
    match last {
        Some(mark) if !mark.admits(header.id) => Err(TalkbackRefusal::Replay),
        _ => Ok(()),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use super::*;
    use crate::clip::Format;
    use crate::keys::{AnnouncerKeys, End};
    use crate::wire::ClipId;

    const NOW_MS: u64 = 1_790_000_000_000;

    struct Scene {
        station: StationKeys,
        announcer: AnnouncerId,
    }

    impl Scene {
        fn new() -> Self {
            let announcer = AnnouncerKeys::generate().unwrap().id();
            Self { station: StationKeys::generate().unwrap(), announcer }
        }

        fn header(&self) -> TalkbackHeader {
            TalkbackHeader {
                station: *self.station.id().as_bytes(),
                announcer: *self.announcer.as_bytes(),
                id: ClipId { epoch: 7, sequence: 2 },
                created_unix_ms: NOW_MS,
                expires_unix_ms: NOW_MS + 60_000,
                format: Format { wav_bytes: 46, rate_hz: 8_000 },
                sha256: [5; 32],
                name: "hall-1".into(),
            }
        }

        /// Proves a header that its own station has signed.
        fn proves(&self, header: &TalkbackHeader) -> Result<StationId, TalkbackRefusal> {
            let encoded = header.encode();
            prove(header, &encoded, &sign(&self.station, &encoded), "hall-1", &self.announcer)
        }
    }

    #[test]
    fn a_signed_header_proves_its_station_and_every_flip_spoils_it() {
        let scene = Scene::new();
        let header = scene.header();
        assert_eq!(scene.proves(&header).unwrap(), scene.station.id());
        let (encoded, signature) = (header.encode(), sign(&scene.station, &header.encode()));
        for bit in 0..encoded.len() * 8 {
            let mut flipped = encoded.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(&scene.station.id(), &flipped, &signature), "bit {bit}");
        }
        for bit in 0..512 {
            let mut flipped = signature;
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(!verify(&scene.station.id(), &encoded, &flipped), "bit {bit} of the signature");
        }
    }

    #[test]
    fn checks_come_in_their_order() {
        let scene = Scene::new();
        // Each header is wrong in one way more than the next, and is refused for the first fault.
        let other = Scene::new();
        let mut header = other.header();
        header.station = *scene.station.id().as_bytes();
        header.name = "hall-2".into();
        header.format.wav_bytes = 45;
        let forged = |header: &TalkbackHeader| {
            let encoded = header.encode();
            prove(header, &encoded, &sign(&other.station, &encoded), "hall-1", &scene.announcer).unwrap_err()
        };
        assert!(matches!(forged(&header), TalkbackRefusal::Format(_)));
        header.format.wav_bytes = 46;
        assert!(matches!(forged(&header), TalkbackRefusal::Station(name) if name == "hall-2"));
        header.name = "hall-1".into();
        assert!(matches!(forged(&header), TalkbackRefusal::Announcer));
        header.announcer = *scene.announcer.as_bytes();
        assert!(matches!(forged(&header), TalkbackRefusal::Signature));
        let encoded = header.encode();
        let cut = &sign(&scene.station, &encoded)[..63];
        let refusal = prove(&header, &encoded, cut, "hall-1", &scene.announcer).unwrap_err();
        assert!(matches!(refusal, TalkbackRefusal::Signature));
        scene.proves(&header).unwrap();

        let heard = TalkedMark { id: header.id, end: Some(End::Heard) };
        let at = |now_ms, last| admit(&header, now_ms, last);
        assert!(matches!(at(NOW_MS + 60_000, Some(heard)), Err(TalkbackRefusal::Expired { late_ms: 0 })));
        assert!(matches!(at(NOW_MS - 5_001, Some(heard)), Err(TalkbackRefusal::NotYet { early_ms: 5_001 })));
        assert!(matches!(at(NOW_MS, Some(heard)), Err(TalkbackRefusal::Replay)));
        let later = TalkedMark { id: ClipId { epoch: 7, sequence: 3 }, end: None };
        assert!(matches!(at(NOW_MS, Some(later)), Err(TalkbackRefusal::Replay)));
        for last in [None, Some(TalkedMark { end: None, ..heard })] {
            at(NOW_MS - 5_000, last).unwrap();
            at(NOW_MS + 59_999, last).unwrap();
        }
        let backwards = TalkbackHeader { created_unix_ms: NOW_MS + 4, expires_unix_ms: NOW_MS + 3, ..header };
        assert!(matches!(admit(&backwards, NOW_MS, None), Err(TalkbackRefusal::Expired { .. })));
    }

    #[test]
    fn no_talkback_is_an_announcement_and_no_announcement_a_talkback() {
        let scene = Scene::new();
        let encoded = scene.header().encode();
        // This holds even for a station that is taken for an announcer.
        let as_announcer = AnnouncerId::from_bytes(*scene.station.id().as_bytes());
        assert!(!crate::seal::verify(&as_announcer, &encoded, &sign(&scene.station, &encoded)));
        let announcer = AnnouncerKeys::generate().unwrap();
        let as_station = StationId::from_bytes(*announcer.id().as_bytes());
        assert!(!verify(&as_station, &encoded, &crate::seal::sign(&announcer, &encoded)));
    }

    #[test]
    fn the_key_that_signs_is_the_stations_own_and_stays_so() {
        let home = tempfile::tempdir().unwrap();
        let folder = crate::keys::StateFolder::open(Some(&home.path().join("state"))).unwrap();
        let keys = StationKeys::load_or_create(&folder).unwrap();
        assert_eq!(StationKeys::load(&folder).unwrap().unwrap().id(), keys.id());
        assert_ne!(StationKeys::generate().unwrap().id(), keys.id());
        assert_ne!(keys.id().as_bytes(), keys.noise().public().as_bytes());
    }
}

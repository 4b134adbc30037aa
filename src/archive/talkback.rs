//! Talkback in the archive: one file each, and a line that proves which station said it.

use std::path::PathBuf;

use tokio::sync::oneshot;

use super::{Archive, ArchiveError, Job, Line, Writer};
use crate::clip::{Clip, hex};
use crate::keys::StationId;
use crate::wire::TalkbackHeader;

/// A talkback to keep.
pub(super) struct Said {
    header: TalkbackHeader,
    encoded: Vec<u8>,
    signature: Vec<u8>,
    clip: Clip,
    done: oneshot::Sender<PathBuf>,
}

impl Archive {
    /// Keeps a talkback, and returns its file once it is on the disk. `encoded` is its header as it was signed;
    /// `signature` is empty in open mode. Returns `None` if it cannot be written, which is reported.
    pub async fn keep_talkback(
        &self,
        header: &TalkbackHeader,
        encoded: &[u8],
        signature: &[u8],
        clip: &Clip,
    ) -> Option<PathBuf> {
        let (done, kept) = oneshot::channel();
        let (header, encoded, signature) = (header.clone(), encoded.to_vec(), signature.to_vec());
        let said = Said { header, encoded, signature, clip: clip.clone(), done };
        self.send(Job::Talkback(Box::new(said)));
        kept.await.ok()
    }
}

impl Writer {
    pub(super) fn talkback(&mut self, said: Said) -> Result<(), ArchiveError> {
        let Said { header, encoded, signature, clip, done } = said;
        let is_signed = !signature.is_empty();
        let signer = is_signed.then(|| StationId::from_bytes(header.station));
        let who = signer.map(|signer| signer.fingerprint());
        let arrived_unix_ms = self.wall.unix_ms();
        let dates_unix_ms = (arrived_unix_ms, header.created_unix_ms);
        let (file, kept) = self.write(dates_unix_ms, who, clip.sha256(), clip.wav())?;
        self.line(&Line::Talkback {
            unix_ms: arrived_unix_ms,
            talkback: header.id.to_string(),
            file: file.clone(),
            station: header.name.clone(),
            signer: signer.map(|signer| signer.to_hex()),
            created_unix_ms: header.created_unix_ms,
            sha256: hex(&header.sha256),
            header: hex(&encoded),
            signature: hex(&signature),
        })?;
        // The connection that it came over may be gone.
        let _ = done.send(self.folder.join(file));
        kept
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::super::{Retention, VerifyError, verify};
    use super::*;
    use crate::event::Events;
    use crate::keys::StationKeys;
    use crate::sample::Sound;
    use crate::seal;
    use crate::wall::Wall;
    use crate::wire::ClipId;

    #[tokio::test]
    async fn a_kept_talkback_proves_which_station_said_it_and_no_other() {
        let home = tempfile::tempdir().unwrap();
        let retention = Retention { age: Duration::from_secs(86_400), bytes: u64::MAX };
        let wall = Wall::new(|| UNIX_EPOCH + Duration::from_millis(1_795_000_000_000));
        let archive = Archive::open_by(home.path(), retention, Events::channel().0, wall).unwrap();
        let clip = Clip::encode(&Sound { rate_hz: 8_000, samples: vec![0.5; 800] }).unwrap();
        let (station, other) = (StationKeys::generate().unwrap(), StationKeys::generate().unwrap());
        let header = TalkbackHeader {
            station: *station.id().as_bytes(),
            announcer: [4; 32],
            id: ClipId { epoch: 7, sequence: 1 },
            created_unix_ms: 1_795_000_000_000,
            expires_unix_ms: 1_795_000_060_000,
            format: clip.format(),
            sha256: *clip.sha256(),
            name: "hall-1".into(),
        };
        let encoded = header.encode();
        let signature = seal::talkback::sign(&station, &encoded);
        let file = archive.keep_talkback(&header, &encoded, &signature, &clip).await.unwrap();
        let good = verify(&file, Some(&station.id().fingerprint().to_string())).unwrap();
        assert_eq!((good.station.as_deref(), good.signer), (Some("hall-1"), station.id().fingerprint()));
        let fingerprint = other.id().fingerprint().to_string();
        assert!(matches!(verify(&file, Some(&fingerprint)), Err(VerifyError::Signer(_))));

        // Signed by another station, or under another station's name: the log does not say what was signed.
        let forged = seal::talkback::sign(&other, &encoded);
        archive.keep_talkback(&header, &encoded, &forged, &clip).await.unwrap();
        assert!(matches!(verify(&file, None), Err(VerifyError::Signature(_))));
        let renamed = TalkbackHeader { name: "hall-2".into(), ..header.clone() };
        archive.keep_talkback(&renamed, &renamed.encode(), &signature, &clip).await.unwrap();
        assert!(matches!(verify(&file, None), Err(VerifyError::Signature(_))));
        archive.keep_talkback(&header, &encoded, &[], &clip).await.unwrap();
        let unsigned = home.path().join("20261118T110640.000Z-open-").display().to_string();
        let unsigned = format!("{unsigned}{}.wav", hex(&header.sha256[..4]));
        assert!(matches!(verify(unsigned.as_ref(), None), Err(VerifyError::Unsigned)));
    }
}

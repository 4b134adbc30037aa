//! Talkback in the archive: a file each, and a line that proves which station said it.

use std::path::PathBuf;

use tokio::sync::oneshot;

use super::{Archive, ArchiveError, Job, Line, Writer, now_unix_ms};
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
    /// Keeps a talkback, and gives its file when it is on the disk. `encoded` is its header as signed; `signature` is
    /// empty in open mode. `None` where it cannot be written, which is told.
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
        let (file, kept) = self.write(header.created_unix_ms, who, &clip)?;
        self.line(&Line::Talkback {
            unix_ms: now_unix_ms(),
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

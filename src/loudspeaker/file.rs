//! A folder as the loudspeaker: each clip becomes a WAV file there, and takes as long as the clip would sound.

use std::fs::Permissions;
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tempfile::NamedTempFile;
use tokio::sync::watch;

use super::live::{Anchor, Feed};
use super::{LoudspeakerError, PlayReport};
use crate::clip::{self, Clip, ClipError};
use crate::devices::{DevicesError, HealthWatch};
use crate::sample;
use crate::shared_folder::refuse_foreign_link;

/// The most files of one live speech that is broken off again and again; after that the last file is overwritten.
const MAX_PARTS: u32 = 100;

/// The folder.
#[derive(Debug)]
pub(super) struct FolderLoudspeaker {
    folder: PathBuf,
    name: String,
    health: HealthWatch,
}

impl FolderLoudspeaker {
    /// Creates the folder if necessary, and checks that it can be written.
    pub(super) fn open(folder: &Path, health: HealthWatch) -> Result<Self, LoudspeakerError> {
        let failed = |source| LoudspeakerError::Folder { folder: folder.into(), source };
        refuse_foreign_link(folder).map_err(failed)?;
        std::fs::create_dir_all(folder).map_err(failed)?;
        temporary(folder).map_err(failed)?;
        Ok(Self { folder: folder.into(), name: format!("file:{}", folder.display()), health })
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn health(&self) -> HealthWatch {
        self.health.clone()
    }

    pub(super) async fn play(
        &mut self,
        clip: &Clip,
        gain: f32,
        label: &str,
        at: tokio::time::Instant,
        on_start: impl FnOnce(),
    ) -> Result<PlayReport, LoudspeakerError> {
        tokio::select! {
            biased;
            error = self.lost() => Err(error),
            report = self.write(clip, gain, label, at, on_start) => report,
        }
    }

    pub(super) async fn play_live(
        &mut self,
        live: (Feed, u32),
        label: &str,
        anchor: watch::Receiver<Anchor>,
        on_start: impl FnOnce(),
    ) -> Result<PlayReport, LoudspeakerError> {
        tokio::select! {
            biased;
            error = self.lost() => Err(error),
            report = self.write_live(live, label, anchor, on_start) => report,
        }
    }

    fn lost(&self) -> impl Future<Output = LoudspeakerError> + use<> {
        let (mut health, device) = (self.health.clone(), self.name.clone());
        async move {
            while health.fault().is_none() {
                health.changed().await;
            }
            LoudspeakerError::Device(Arc::new(DevicesError::Silent { device, waited: Duration::ZERO }))
        }
    }

    /// Takes each 10 ms of sound when it is due, and writes everything at the end.
    async fn write_live(
        &self,
        (mut feed, rate_hz): (Feed, u32),
        label: &str,
        anchor: watch::Receiver<Anchor>,
        on_start: impl FnOnce(),
    ) -> Result<PlayReport, LoudspeakerError> {
        let step = u64::from(rate_hz / 100).max(1);
        let mut stretch = vec![0.0; step as usize];
        let (mut heard, mut frames) = (Vec::new(), 0);
        let (mut on_start, mut start_error, mut worst) = (Some(on_start), Duration::ZERO, Duration::ZERO);
        while frames < feed.end() {
            let Anchor { index, at } = *anchor.borrow();
            let length = |frames: u64| Duration::from_nanos(frames * 1_000_000_000 / u64::from(rate_hz));
            let due = match frames.checked_sub(index) {
                Some(after) => at + length(after),
                None => at.checked_sub(length(index - frames)).unwrap_or(at),
            };
            tokio::time::sleep_until(due).await;
            let late = due.elapsed();
            if let Some(on_start) = on_start.take() {
                start_error = late;
                on_start();
            }
            worst = worst.max(late);
            feed.take(&mut stretch);
            let said = feed.end().saturating_sub(frames).min(step) as usize;
            heard.extend(stretch.iter().take(said).flat_map(|sample| sample::to_i16(*sample).to_le_bytes()));
            frames += step;
        }
        // Lets the feed notice that the last block is over.
        feed.take(&mut [0.0]);
        let stem = stem(label);
        let folder = self.folder.clone();
        let write = move || {
            let file = write_temporary(&folder, &clip::wav(rate_hz, &heard))?;
            // Keeps the file of what was heard before the speech was broken off.
            let mut to = folder.join(format!("{stem}.wav"));
            for part in 2..=MAX_PARTS {
                if std::fs::symlink_metadata(&to).is_err() {
                    break;
                }
                to = folder.join(format!("{stem}-{part}.wav"));
            }
            persist(file, &to)
        };
        let failed = |source| LoudspeakerError::Folder { folder: self.folder.clone(), source };
        on_a_thread(write).await.map_err(failed)?;
        Ok(PlayReport {
            frames: 0,
            start_error_us: start_error.as_micros() as i64,
            max_error_us: worst.as_micros() as u64,
            underruns: 0,
        })
    }

    async fn write(
        &self,
        clip: &Clip,
        gain: f32,
        label: &str,
        at: tokio::time::Instant,
        on_start: impl FnOnce(),
    ) -> Result<PlayReport, LoudspeakerError> {
        let clip = at_gain(clip, gain)?;
        tokio::time::sleep_until(at).await;
        let begun = tokio::time::Instant::now();
        on_start();
        let length = clip.format().length();
        // The file is not urgent, but many stations on one machine must report that they have begun.
        tokio::time::sleep_until(begun + length / 2).await;
        let stem = stem(label);
        let (wav, folder) = (clip.wav().clone(), self.folder.clone());
        let failed = |source| LoudspeakerError::Folder { folder: self.folder.clone(), source };
        let file = on_a_thread(move || write_temporary(&folder, &wav)).await.map_err(failed)?;
        tokio::time::sleep_until(begun + length).await;
        let to = self.folder.join(format!("{stem}.wav"));
        on_a_thread(move || persist(file, &to)).await.map_err(failed)?;
        Ok(PlayReport {
            frames: clip.format().frames().into(),
            start_error_us: begun.saturating_duration_since(at).as_micros() as i64,
            max_error_us: 0,
            underruns: 0,
        })
    }
}

/// Runs work on a thread of its own, so that a disk that hangs holds up nobody else.
async fn on_a_thread<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    tokio::task::spawn_blocking(work).await.map_err(io::Error::other).and_then(|done| done)
}

/// Returns the clip as it sounds at a gain; at 1 the clip itself.
fn at_gain(clip: &Clip, gain: f32) -> Result<Clip, ClipError> {
    if gain == 1.0 {
        return Ok(clip.clone());
    }
    let mut sound = clip.sound();
    sound.samples.iter_mut().for_each(|sample| *sample *= gain);
    Clip::encode(&sound)
}

/// Creates a file under a name that nobody can predict, because others may put links into the folder. It is removed again unless
/// it gets its final name.
fn temporary(folder: &Path) -> io::Result<NamedTempFile> {
    let mut file = tempfile::Builder::new();
    // The user's mask applies, as to any file.
    file.prefix(".bullhorn-").suffix(".part").permissions(Permissions::from_mode(0o666));
    file.tempfile_in(folder)
}

fn write_temporary(folder: &Path, content: &[u8]) -> io::Result<NamedTempFile> {
    let mut file = temporary(folder)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    Ok(file)
}

/// Gives the file its name, in place of anything that has it; a link is replaced, not followed.
fn persist(file: NamedTempFile, to: &Path) -> io::Result<()> {
    file.persist(to).map(drop).map_err(io::Error::from)
}

/// Turns a label into a file name: nothing in it leads to another folder or hides the file.
fn stem(label: &str) -> String {
    let kept = |symbol: char| if symbol.is_control() || "/\\".contains(symbol) { '_' } else { symbol };
    let stem: String = label.trim_start_matches('.').chars().map(kept).take(100).collect();
    if stem.is_empty() { "clip".into() } else { stem }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::sample::Sound;

    fn clip() -> Clip {
        Clip::encode(&Sound { rate_hz: 8_000, samples: vec![0.25; 16_000] }).expect("a clip")
    }

    fn files(folder: &Path) -> Vec<String> {
        let entries = std::fs::read_dir(folder).expect("the folder");
        entries.map(|entry| entry.expect("an entry").file_name().into_string().expect("UTF-8")).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn the_clip_is_there_to_the_bit_when_it_has_sounded() {
        let folder = tempfile::tempdir().expect("a folder");
        let clip = clip();
        let mut loudspeaker = FolderLoudspeaker::open(folder.path(), HealthWatch::sound()).expect("open");
        let at = Instant::now() + Duration::from_secs(1);
        let mut begun = None;
        let report = loudspeaker
            .play(&clip, 1.0, "hall-1-5f3a-1", at, || begun = Some(Instant::now()))
            .await
            .expect("played");
        assert_eq!(report.frames, 16_000);
        assert!(begun.expect("begun") - at <= Duration::from_millis(2));
        assert!(Instant::now() - at >= Duration::from_secs(2));
        assert_eq!(files(folder.path()), ["hall-1-5f3a-1.wav"]);
        let written = std::fs::read(folder.path().join("hall-1-5f3a-1.wav")).expect("read");
        assert_eq!(written, clip.wav()[..]);
    }

    #[tokio::test(start_paused = true)]
    async fn a_clip_cut_short_leaves_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        let clip = clip();
        let mut loudspeaker = FolderLoudspeaker::open(folder.path(), HealthWatch::sound()).expect("open");
        let play = loudspeaker.play(&clip, 1.0, "hall-1", Instant::now(), || ());
        assert!(tokio::time::timeout(Duration::from_secs(1), play).await.is_err());
        assert!(files(folder.path()).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_played_quietly_is_written_quietly() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut loudspeaker = FolderLoudspeaker::open(folder.path(), HealthWatch::sound()).expect("open");
        let report = loudspeaker.play(&clip(), 0.5, "hall-1", Instant::now(), || ()).await.expect("played");
        assert_eq!(report.frames, 16_000);
        let written = crate::sound_file::read(&folder.path().join("hall-1.wav")).expect("read");
        assert!(written.samples.len() == 16_000 && written.samples.iter().all(|sample| *sample == 0.125));
    }

    #[test]
    fn labels_stay_in_the_folder() {
        assert_eq!(stem("hall-1-5f3a9c21-3"), "hall-1-5f3a9c21-3");
        assert_eq!(stem("../../etc/passwd"), "_.._etc_passwd");
        assert_eq!(stem("..."), "clip");
        assert_eq!(stem("a\u{0}b\nc"), "a_b_c");
    }

    #[tokio::test(start_paused = true)]
    async fn links_that_others_put_there_are_not_written_through() {
        use std::os::unix::fs::symlink;
        let folder = tempfile::tempdir().expect("a folder");
        let precious = folder.path().join("precious");
        std::fs::write(&precious, "mine").expect("written");
        let played = folder.path().join("played");
        std::fs::create_dir(&played).expect("made");
        let own = std::process::id();
        for name in [format!(".bullhorn-{own}.part"), ".hall-1.wav.part".into(), "hall-1.wav".into()] {
            symlink(&precious, played.join(name)).expect("linked");
        }
        let mut loudspeaker = FolderLoudspeaker::open(&played, HealthWatch::sound()).expect("open");
        loudspeaker.play(&clip(), 1.0, "hall-1", Instant::now(), || ()).await.expect("played");
        assert_eq!(std::fs::read(&precious).expect("read"), b"mine");
        let written = played.join("hall-1.wav");
        assert!(!written.is_symlink());
        assert_eq!(std::fs::read(written).expect("read"), clip().wav()[..]);
    }

    #[test]
    fn a_folder_that_cannot_be_is_found_at_once() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("file");
        std::fs::write(&file, "").expect("written");
        let error = FolderLoudspeaker::open(&file.join("sub"), HealthWatch::sound()).expect_err("no folder");
        assert!(error.to_string().contains("file/sub"), "{error}");
    }
}

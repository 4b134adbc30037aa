//! The demo: an announcer and two stations in one process, with whatever sound devices this machine has.

use std::fs::Permissions;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::advice::about_folder;
use crate::announcer::{self, AnnouncerError, Summary};
use crate::event::{Command, Events};
use crate::keys::{KeysError, StateFolder};
use crate::loudspeaker::{Loudspeaker, LoudspeakerError, Output};
use crate::membership::{Membership, MembershipError};
use crate::microphone::{Input, Microphone, MicrophoneError};
use crate::prepare::{DEFAULT_LEVEL_LUFS, Preparation};
use crate::priority::Priority;
use crate::site::Site;
use crate::speaker::{self, SpeakerError};
use crate::stations::STRAGGLER_WAIT;
use crate::volume::Volume;

/// The stations' names.
pub const STATIONS: [&str; 2] = ["hall-1", "hall-2"];
/// The speech that is announced where there is no microphone.
const SPEECH: &[u8] = include_bytes!("../assets/speech.wav");

/// Why the demo cannot run.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// There is no folder for the sound that the stations play.
    #[error("cannot write the demo's files to {}: {}", path.display(), about_folder(source))]
    Folder {
        /// The folder.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The shipped speech cannot be used as a microphone.
    #[error("cannot use the demo's speech")]
    Microphone(#[from] MicrophoneError),
    /// A file loudspeaker cannot be opened.
    #[error("cannot use the demo's folder as a loudspeaker")]
    Loudspeaker(#[from] LoudspeakerError),
    /// The demo's keys cannot be made.
    #[error("cannot make keys for the demo")]
    Keys(#[from] KeysError),
    /// A station of the demo cannot join.
    #[error("a station of the demo cannot join")]
    Membership(#[from] MembershipError),
    /// No port on this machine can be opened.
    #[error("cannot listen on this machine")]
    Listen(#[source] io::Error),
    /// The announcer failed.
    #[error(transparent)]
    Announcer(#[from] AnnouncerError),
    /// A station failed.
    #[error(transparent)]
    Speaker(#[from] SpeakerError),
}

/// The parts of a demo, found on this machine.
pub struct Demo {
    microphone: Microphone,
    loudspeakers: Vec<Loudspeaker>,
    /// What was found, and what replaces anything that was not: sentences for the user.
    pub findings: Vec<String>,
    folder: PathBuf,
}

impl Demo {
    /// Looks for a microphone and a loudspeaker. The shipped speech and files in a new folder replace those that are
    /// missing.
    ///
    /// # Errors
    /// [`DemoError`] when not even files can be used.
    pub fn find() -> Result<Self, DemoError> {
        let folder = make_folder()?;
        let mut findings = Vec::new();
        let microphone = match Microphone::open(&Input::Default) {
            Ok(microphone) => {
                findings.push(format!("microphone: {}", microphone.name()));
                microphone
            }
            Err(error) => {
                tracing::info!("{}", crate::error_chain(&error));
                findings.push("no microphone was found: a spoken clip stands in for it".to_owned());
                let speech = folder.join("speech.wav");
                std::fs::write(&speech, SPEECH)
                    .map_err(|source| DemoError::Folder { path: folder.clone(), source })?;
                Microphone::open(&Input::File(speech))?
            }
        };
        let mut loudspeakers = Vec::new();
        for station in STATIONS {
            let loudspeaker = match Loudspeaker::open(&Output::Default) {
                Ok(loudspeaker) => {
                    findings.push(format!("{station} plays on {}", loudspeaker.name()));
                    loudspeaker
                }
                Err(error) => {
                    tracing::info!("{}", crate::error_chain(&error));
                    let to = folder.display();
                    findings.push(format!(
                        "no loudspeaker was found for {station}: what it plays is written to {to}"
                    ));
                    Loudspeaker::open(&Output::File(folder.clone()))?
                }
            };
            loudspeakers.push(loudspeaker);
        }
        Ok(Self { microphone, loudspeakers, findings, folder })
    }

    /// Runs until it is asked to leave; with `once`, announces once as soon as both stations are here.
    ///
    /// # Errors
    /// [`DemoError`].
    pub async fn run(
        self,
        once: bool,
        commands: mpsc::Receiver<Command>,
        events: Events,
        shutdown: CancellationToken,
    ) -> Result<Summary, DemoError> {
        let any_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let listener = TcpListener::bind(any_port).await.map_err(DemoError::Listen)?;
        let address = listener.local_addr().map_err(DemoError::Listen)?;
        // The demo has its own keys, so that it is as private as a real site and leaves no trace in one.
        let state = StateFolder::open(Some(&self.folder.join("state")))?;
        let site = Arc::new(Site::open(&state)?);
        let leaving = CancellationToken::new();
        let mut stations = tokio::task::JoinSet::new();
        for (name, loudspeaker) in STATIONS.into_iter().zip(self.loudspeakers) {
            let config = speaker::Config {
                announcers: vec![speaker::Announcer {
                    host: address.ip().to_string(),
                    port: address.port(),
                    membership: Some(Membership::open(
                        &state,
                        (&address.ip().to_string(), address.port()),
                        name,
                        &[],
                        None,
                    )?),
                }],
                name: name.to_owned(),
                zones: Vec::new(),
                delay_us: 0,
                volume: Volume::FULL,
                archive: None,
                talkback: None,
                is_attended: true,
            };
            // The announcer reports everything that matters here, so the stations' events are not read.
            let (events, _) = Events::channel();
            stations.spawn(speaker::run(config, loudspeaker, events, leaving.clone()));
        }
        let config = announcer::Config {
            live: false,
            latency: announcer::DEFAULT_LATENCY,
            rate_hz: None,
            preparation: Preparation { level_lufs: Some(DEFAULT_LEVEL_LUFS), ..Preparation::default() },
            monitor: None,
            max_stations: announcer::DEFAULT_MAX_STATIONS,
            length: None,
            zones: Vec::new(),
            priority: Priority::default(),
            keep: Duration::from_secs(60),
            wait: STRAGGLER_WAIT,
            once: once.then_some(STATIONS.len()),
            lines: false,
            site: Some(site),
            archive: None,
            talkback: None,
        };
        let summary = announcer::run(listener, self.microphone, config, commands, events, shutdown).await?;
        leaving.cancel();
        while let Some(ended) = stations.join_next().await {
            ended.unwrap_or_else(|panic| std::panic::resume_unwind(panic.into_panic()))?;
        }
        Ok(summary)
    }

    /// The WAVs that stations have written into the demo's folder so far, sorted by name.
    pub fn written(folder: &Path) -> Vec<PathBuf> {
        let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
        let is_played = |path: &PathBuf| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            STATIONS.iter().any(|station| name.starts_with(station)) && name.ends_with(".wav")
        };
        let mut paths: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).filter(is_played).collect();
        paths.sort();
        paths
    }

    /// The folder in which the stations write, if they do.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Creates a new folder for this user alone. Its name cannot be known in advance, because others can write to the
/// parent folder.
fn make_folder() -> Result<PathBuf, DemoError> {
    let path = std::env::temp_dir();
    let mut folder = tempfile::Builder::new();
    folder.prefix("bullhorn-demo-").permissions(Permissions::from_mode(0o700));
    match folder.tempdir_in(&path) {
        Ok(folder) => Ok(folder.keep()),
        Err(source) => Err(DemoError::Folder { path, source }),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn its_folder_is_new_each_time_and_nobody_elses() {
        let (one, other) = (make_folder().unwrap(), make_folder().unwrap());
        assert_ne!(one, other);
        for folder in [one, other] {
            let found = std::fs::symlink_metadata(&folder).unwrap();
            assert!(found.is_dir());
            assert_eq!(found.mode() & 0o777, 0o700);
            std::fs::remove_dir(folder).unwrap();
        }
    }
}

//! A private PulseAudio server with software sound cards.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Two halls on one null sink of two channels, a slow null sink, and a talker that the microphone hears.
///
/// While a null sink that may rewind is idle, it renders two seconds at once, and a new stream waits for them; `norewinds`
/// prevents that.
const SCRIPT: &str = "\
load-module module-native-protocol-unix auth-anonymous=1
load-module module-null-sink sink_name=all rate=40000 channels=2 norewinds=1
load-module module-remap-sink sink_name=hallA master=all channels=1 channel_map=mono master_channel_map=front-left remix=no
load-module module-remap-sink sink_name=hallB master=all channels=1 channel_map=mono master_channel_map=front-right remix=no
load-module module-null-sink sink_name=slow rate=25000 channels=1 format=u8 norewinds=1
load-module module-null-sink sink_name=talker rate=40000 channels=1 norewinds=1
load-module module-remap-source source_name=micsrc master=talker.monitor channels=1 channel_map=mono master_channel_map=mono remix=no
set-default-sink hallA
set-default-source micsrc
";

/// The rate of the recordings that [`Pulse::record`] makes, and of most sinks. A null sink counts whole microseconds: a frame is
/// 25 of them, or 40 in the slow one. At 48 kHz it cuts off the rest of each piece, and what it plays comes out in steps.
pub const RATE_HZ: u32 = 40_000;

/// Held by the one running server: several on one small machine would run dry.
static ALONE: Mutex<()> = Mutex::new(());

/// A server that stops when this value is dropped.
pub struct Pulse {
    _alone: MutexGuard<'static, ()>,
    folder: tempfile::TempDir,
    server: Child,
}

impl Pulse {
    /// Starts a server and waits until it answers.
    pub fn start() -> Self {
        let alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("halls.pa"), SCRIPT).expect("the script");
        let server = serve(folder.path());
        let pulse = Self { _alone: alone, folder, server };
        pulse.await_answer();
        pulse
    }

    fn await_answer(&self) {
        let deadline = Instant::now() + Duration::from_secs(10);
        while !self.answers() {
            assert!(Instant::now() < deadline, "the sound server did not start in 10 s");
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn answers(&self) -> bool {
        let asked = self.tool("pactl").args(["get-default-source"]).output().expect("pactl is installed");
        asked.stdout.starts_with(b"micsrc")
    }

    /// A command for a program that finds this server and no other.
    pub fn tool(&self, program: &str) -> Command {
        private(Command::new(program), self.folder.path())
    }

    /// Starts recording a sink's monitor as 16-bit samples at [`RATE_HZ`].
    pub fn record(&self, sink: &str, channels: usize) -> Recording {
        let file = self.folder.path().join(format!("{sink}.raw"));
        let recorder = self
            .tool("parec")
            .args(["--raw", "--format=s16le", "--latency-msec=20"])
            .arg(format!("--rate={RATE_HZ}"))
            .arg(format!("--channels={channels}"))
            .arg(format!("--device={sink}.monitor"))
            .arg(&file)
            .spawn()
            .expect("parec is installed");
        let deadline = Instant::now() + Duration::from_secs(10);
        while std::fs::metadata(&file).map_or(0, |data| data.len()) == 0 {
            assert!(Instant::now() < deadline, "nothing was recorded in 10 s");
            std::thread::sleep(Duration::from_millis(10));
        }
        Recording { recorder, file, channels }
    }

    /// Kills the server at once.
    pub fn kill(&mut self) {
        self.server.kill().expect("killed");
        self.server.wait().expect("ended");
    }

    /// Starts it again, in the same place.
    pub fn restart(&mut self) {
        let folder = self.folder.path();
        // A killed server leaves these behind.
        let _ = std::fs::remove_file(folder.join("pulse/pid"));
        let _ = std::fs::remove_file(folder.join("pulse/native"));
        self.server = serve(folder);
        self.await_answer();
    }
}

impl Drop for Pulse {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
    }
}

fn serve(folder: &Path) -> Child {
    private(Command::new("pulseaudio"), folder)
        .args(["-n", "--daemonize=no", "--exit-idle-time=-1", "-F"])
        .arg(folder.join("halls.pa"))
        .stderr(Stdio::null())
        .spawn()
        .expect("pulseaudio, which these tests need, is installed")
}

fn private(mut command: Command, folder: &Path) -> Command {
    command.env("XDG_RUNTIME_DIR", folder).env("HOME", folder);
    for name in ["PULSE_SERVER", "PULSE_RUNTIME_PATH", "PULSE_SINK", "PULSE_SOURCE", "PULSE_COOKIE"] {
        command.env_remove(name);
    }
    command
}

/// A recording in progress.
pub struct Recording {
    recorder: Child,
    file: std::path::PathBuf,
    channels: usize,
}

impl Recording {
    /// Stops it, and returns the samples of each channel, ±1.0.
    pub fn stop(mut self) -> Vec<Vec<f32>> {
        self.recorder.kill().expect("killed");
        self.recorder.wait().expect("ended");
        let bytes = std::fs::read(&self.file).expect("the recording");
        let samples: Vec<f32> = bytes
            .chunks_exact(2)
            .map(|pair| f32::from(i16::from_le_bytes([pair[0], pair[1]])) / 32_768.0)
            .collect();
        let channel = |index| samples.iter().skip(index).step_by(self.channels).copied().collect();
        (0..self.channels).map(channel).collect()
    }
}

//! Snapcast's server and two clients on a private sound server.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::support::pulse::{PulseRig, RATE_HZ};

/// A port on which nothing else here listens.
const PORT: u16 = 17_041;

/// A running server with clients on `hall-1` and `hall-2`. Stops when it is dropped.
#[derive(Debug)]
pub struct Snapcast {
    programs: Vec<Child>,
    pipe: std::fs::File,
}

impl Snapcast {
    /// Whether its packages are installed.
    pub fn is_installed() -> bool {
        ["snapserver", "snapclient"].iter().all(|program| {
            let mut version = Command::new(program);
            version.arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
        })
    }

    /// Starts it, with its second of buffer, uncompressed, and its PulseAudio player.
    pub fn start(rig: &PulseRig) -> Self {
        let folder = rig.folder().join("snapcast");
        std::fs::create_dir_all(&folder).unwrap();
        let pipe = folder.join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        let settings = folder.join("snapserver.conf");
        let lines = format!(
            "[server]\ndatadir = {folder}\n[http]\nenabled = false\n[tcp]\nenabled = false\n[stream]\n\
             bind_to_address = 127.0.0.1\nport = {PORT}\ncodec = pcm\nbuffer = 1000\n\
             source = pipe://{pipe}?name=default&mode=read&sampleformat={RATE_HZ}:16:1\n",
            folder = folder.display(),
            pipe = pipe.display(),
        );
        std::fs::write(&settings, lines).unwrap();
        let start = |program: &str, arguments: &[&str]| {
            let log = std::fs::File::create(folder.join(format!("{program}.log"))).unwrap();
            Command::new(program)
                .args(arguments)
                .envs(rig.environment())
                .stdin(Stdio::null())
                .stdout(log)
                .stderr(Stdio::null())
                .spawn()
                .unwrap()
        };
        let mut programs = vec![start("snapserver", &["-c", settings.to_str().unwrap()])];
        let port = PORT.to_string();
        let give_up = std::time::Instant::now() + crate::support::DEADLINE;
        while std::net::TcpStream::connect(("127.0.0.1", PORT)).is_err() {
            assert!(std::time::Instant::now() < give_up, "snapserver does not answer");
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        for (number, hall) in [("1", "hall-1"), ("2", "hall-2")] {
            let arguments = ["-h", "127.0.0.1", "-p", &port, "-i", number, "--hostID", hall];
            let player = ["--player", "pulse", "-s", hall, "--logsink", "stdout"];
            programs.push(start("snapclient", &[&arguments[..], &player].concat()));
        }
        // Opened for reading as well, so that it opens at once and stays open between announcements.
        let pipe = std::fs::OpenOptions::new().read(true).write(true).open(pipe).unwrap();
        Self { programs, pipe }
    }

    /// Plays a WAV file with a header of 44 bytes, mono, 16 bit; returns when the server has accepted the last of it.
    pub fn say(&mut self, wav: &Path) {
        self.pipe.write_all(&std::fs::read(wav).unwrap()[44..]).unwrap();
    }
}

impl Drop for Snapcast {
    fn drop(&mut self) {
        for program in &mut self.programs {
            drop(program.kill());
            drop(program.wait());
        }
    }
}

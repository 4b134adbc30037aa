//! A terminal that supports the kitty keyboard protocol: a pseudoterminal, and answers to the queries of programs.

use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use super::DEADLINE;

/// A program's queries, and the answers of such a terminal: where the cursor is, which keyboard it has, what it is.
const ANSWERS: [(&[u8], &[u8]); 3] =
    [(b"\x1b[6n", b"\x1b[1;1R"), (b"\x1b[?u", b"\x1b[?0u"), (b"\x1b[c", b"\x1b[?62c")];

type Output = Arc<(Mutex<Vec<u8>>, Condvar)>;

/// A program at such a terminal. Killed when dropped.
#[derive(Debug)]
pub struct KittyTerminal {
    child: Child,
    keys: File,
    output: Output,
}

impl KittyTerminal {
    /// Starts a program in a window of 100 by 30.
    pub fn start(program: &str, arguments: &[&str], environment: &[(String, String)]) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        let size = Winsize { ws_row: 30, ws_col: 100, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&master, size).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let end = || File::options().read(true).write(true).open(path).unwrap();
        // Its own session, so that it finds this terminal and not the one in which the test runs.
        let child = Command::new("setsid")
            .arg("--ctty")
            .arg(program)
            .args(arguments)
            .envs(environment.iter().cloned())
            .env("TERM", "xterm-kitty")
            .env_remove("RUST_LOG")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .spawn()
            .unwrap();
        let mut screen = File::from(master);
        let keys = screen.try_clone().unwrap();
        let mut replies = screen.try_clone().unwrap();
        let output = Output::default();
        let shown = Arc::clone(&output);
        std::thread::spawn(move || {
            let mut block = [0; 4096];
            let mut asked = Vec::new();
            // When the program exits, the last end closes, and reading fails.
            while let Ok(count @ 1..) = screen.read(&mut block) {
                for &byte in &block[..count] {
                    asked.push(byte);
                    if let Some((_, answer)) = ANSWERS.iter().find(|(question, _)| asked.ends_with(question))
                    {
                        drop(replies.write_all(answer));
                        asked.clear();
                    }
                }
                shown.0.lock().unwrap().extend_from_slice(&block[..count]);
                shown.1.notify_all();
            }
        });
        Self { child, keys, output }
    }

    /// Sends bytes as the terminal does for a key.
    pub fn send(&mut self, bytes: &[u8]) {
        self.keys.write_all(bytes).unwrap();
    }

    /// Waits until these bytes were written, control sequences included.
    pub fn wait_for_raw(&self, part: &str) {
        self.wait_until(part, |written| written.contains(part).then(String::new));
    }

    /// Waits until these words were written, and returns all words so far. If the cursor was moved between two words,
    /// there is a space.
    pub fn wait_for(&self, words: &str) -> String {
        self.wait_until(words, |written| Some(words_of(written)).filter(|all| all.contains(words)))
    }

    fn wait_until(&self, what: &str, found: impl Fn(&str) -> Option<String>) -> String {
        let give_up = Instant::now() + DEADLINE;
        let mut shown = self.output.0.lock().unwrap();
        loop {
            let written = String::from_utf8_lossy(&shown).into_owned();
            if let Some(found) = found(&written) {
                return found;
            }
            let left = give_up.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "the terminal was never sent {what:?}: {written:?}");
            shown = self.output.1.wait_timeout(shown, left).unwrap().0;
        }
    }

    /// Waits until the program exits.
    pub fn exit_code(&mut self) -> Option<i32> {
        let give_up = Instant::now() + DEADLINE;
        while Instant::now() < give_up {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the program does not end");
    }
}

impl Drop for KittyTerminal {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// The written text without control sequences, with single spaces.
fn words_of(written: &str) -> String {
    let mut words = String::new();
    for (index, part) in written.split("\x1b[").enumerate() {
        let text = if index == 0 {
            part
        } else {
            part.split_once(|c: char| c.is_ascii_alphabetic()).map_or("", |it| it.1)
        };
        for word in text.split_whitespace() {
            words += word;
            words += " ";
        }
    }
    words
}

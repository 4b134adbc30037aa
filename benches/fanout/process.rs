//! A child process, its output lines, and its resource use according to the kernel.

use std::ffi::OsStr;
use std::process::Stdio;
use std::time::Duration;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::sync::mpsc;
use tokio::time::{Instant, timeout};

/// Longer than anything here takes; whatever exceeds it is broken.
pub const PATIENCE: Duration = Duration::from_secs(120);
/// User and system time in /proc count in these (proc(5); USER_HZ is 100 on every Linux).
const TICK: Duration = Duration::from_millis(10);

pub struct Process {
    child: Child,
    id: u32,
    input: ChildStdin,
    lines: mpsc::UnboundedReceiver<(Instant, String)>,
}

impl Process {
    pub fn start(program: impl AsRef<OsStr>, arguments: &[String]) -> Self {
        let mut child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .unwrap();
        let id = child.id().unwrap();
        let input = child.stdin.take().unwrap();
        let mut output = BufReader::new(child.stdout.take().unwrap()).lines();
        let (sender, lines) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            while let Ok(Some(line)) = output.next_line().await {
                let _ = sender.send((Instant::now(), line));
            }
        });
        Self { child, id, input, lines }
    }

    pub async fn stamped_line(&mut self) -> (Instant, String) {
        timeout(PATIENCE, self.lines.recv())
            .await
            .expect("the child says nothing")
            .expect("the child is gone")
    }

    pub async fn line(&mut self) -> String {
        self.stamped_line().await.1
    }

    pub async fn say(&mut self, line: &str) {
        self.input.write_all(format!("{line}\n").as_bytes()).await.unwrap();
        self.input.flush().await.unwrap();
    }

    pub async fn kill(mut self) {
        self.child.kill().await.unwrap();
    }

    pub fn cpu(&self) -> Duration {
        cpu(&self.id.to_string())
    }

    /// The memory that is resident now, in bytes.
    pub fn resident(&self) -> u64 {
        self.status("VmRSS:")
    }

    /// The most memory that was resident since [`Self::forget_peak`], in bytes.
    pub fn peak(&self) -> u64 {
        self.status("VmHWM:")
    }

    pub fn forget_peak(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.id), "5").unwrap();
    }

    fn status(&self, key: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.id)).unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
    }
}

pub fn own_cpu() -> Duration {
    cpu("self")
}

fn cpu(process: &str) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap();
    // Fields are counted after the name, which may contain spaces: utime and stime are fields 14 and 15 of all.
    let (_, fields) = stat.rsplit_once(')').unwrap();
    let ticks = |field: usize| fields.split_whitespace().nth(field - 3).unwrap().parse::<u32>().unwrap();
    TICK * (ticks(14) + ticks(15))
}

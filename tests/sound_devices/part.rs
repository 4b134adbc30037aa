//! A process of its own that uses a private sound server: the server is found through the environment, which a process
//! cannot change safely for itself. The test program is run again, with work in its environment.

use std::collections::HashMap;
use std::io::{BufRead, BufReader};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::pulse::Pulse;

/// The variable that holds the part's work, and the start of each line of its report.
const WORK: &str = "BULLHORN_TEST_WORK";
const MARK: &str = "part-says ";

/// A running part.
pub struct Part {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

/// One line that a part reported: `key=value` pairs.
pub type Said = HashMap<String, String>;

impl Part {
    /// Starts a part that does `work`.
    pub fn start(pulse: &Pulse, work: &str) -> Self {
        let program = std::env::current_exe().expect("this program");
        let mut command: Command = pulse.tool(program.to_str().expect("UTF-8"));
        let mut child = command.env(WORK, work).stdout(Stdio::piped()).spawn().expect("this program again");
        let lines = BufReader::new(child.stdout.take().expect("piped")).lines();
        Self { child, lines }
    }

    /// The next line that it reports.
    pub fn hear(&mut self) -> Said {
        loop {
            let line = self.lines.next().expect("the part says more").expect("a line");
            if let Some((_, said)) = line.split_once(MARK) {
                let pair = |pair: &str| pair.split_once('=').map(|(key, value)| (key.into(), value.into()));
                return said.split('\t').filter_map(pair).collect();
            }
        }
    }

    /// The processor time used so far, and the memory that is resident now, in kB.
    pub fn cost(&self) -> (Duration, u64) {
        let read = |file| std::fs::read_to_string(format!("/proc/{}/{file}", self.child.id())).expect("proc");
        let stat = read("stat");
        let ticks: u64 = stat.split(' ').skip(13).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
        let status = read("status");
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("VmRSS");
        (
            Duration::from_millis(ticks * 10),
            resident.trim().trim_end_matches(" kB").parse().expect("a number"),
        )
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The work given to this process, in words; `None` in the test program itself.
pub fn work() -> Option<Vec<String>> {
    let work = std::env::var(WORK).ok()?;
    Some(work.split('\t').map(str::to_owned).collect())
}

/// Reports a line to the test program.
pub fn say(what: &str) {
    println!("\n{MARK}{what}");
}

/// A moment of the system's clock, in microseconds since 1970, on which two processes can agree.
pub fn moment_in(ahead: Duration) -> u128 {
    (SystemTime::now() + ahead).duration_since(UNIX_EPOCH).expect("after 1970").as_micros()
}

/// The same moment on this process's own clock.
pub fn instant_of(moment_us: u128) -> Instant {
    let now_us = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_micros();
    let now = Instant::now();
    if moment_us >= now_us {
        now + Duration::from_micros((moment_us - now_us) as u64)
    } else {
        now - Duration::from_micros((now_us - moment_us) as u64)
    }
}

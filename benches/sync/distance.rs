//! A network between two computers, made of threads: everything sent through it is delayed, by a varying time.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::support::wav::noise;

/// How far apart two computers are in time.
#[derive(Debug, Clone, Copy)]
pub struct Distance {
    way: Duration,
    jitter: Duration,
    /// By what share one direction takes longer than the other.
    asymmetry: f64,
}

impl Default for Distance {
    fn default() -> Self {
        Self { way: Duration::from_millis(5), jitter: Duration::from_millis(3), asymmetry: 0.1 }
    }
}

impl Distance {
    /// Returns an address at which `address` is this far away; farther there than back, or the other way round.
    pub fn to(self, address: &str, is_farther_back: bool) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let near = listener.local_addr().unwrap().to_string();
        let far = address.to_owned();
        std::thread::spawn(move || {
            for (number, stream) in listener.incoming().map_while(Result::ok).enumerate() {
                let Ok(other) = TcpStream::connect(&far) else { continue };
                for end in [&stream, &other] {
                    end.set_nodelay(true).unwrap();
                }
                let (there, back) = (1.0 + self.asymmetry, 1.0);
                let (there, back) = if is_farther_back { (back, there) } else { (there, back) };
                let seed = 2 * number as u64 + u64::from(is_farther_back) * 1_000_000;
                self.carry(stream.try_clone().unwrap(), other.try_clone().unwrap(), there, seed);
                self.carry(other, stream, back, seed + 1);
            }
        });
        near
    }

    fn carry(self, mut from: TcpStream, mut into: TcpStream, share: f64, seed: u64) {
        let (sender, parcels) = channel::<(Instant, Vec<u8>)>();
        std::thread::spawn(move || {
            let mut block = vec![0; 64 * 1024];
            let mut jitter = noise(seed);
            while let Ok(count @ 1..) = from.read(&mut block) {
                let way = self.way.as_secs_f64() * share;
                let way = way + self.jitter.as_secs_f64() * f64::from(jitter.next().unwrap_or_default());
                let due = Instant::now() + Duration::from_secs_f64(way.max(0.0));
                if sender.send((due, block[..count].to_vec())).is_err() {
                    return;
                }
            }
        });
        std::thread::spawn(move || {
            // Later data does not overtake earlier data: it is a stream.
            for (due, parcel) in parcels {
                std::thread::sleep(due.saturating_duration_since(Instant::now()));
                if into.write_all(&parcel).is_err() {
                    break;
                }
            }
            // The other side might be gone already.
            let _ = into.shutdown(Shutdown::Write);
        });
    }
}

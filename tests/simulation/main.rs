//! One real announcer and a handful of real stations in a simulated network, on simulated time, under everything that
//! can go wrong, at instants that a seed chooses. `SEEDS=N` runs N seeds; `SEED=N` runs one alone and prints its log.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod building;
mod chaos;
mod gate;
mod network;
mod oracle;
mod papers;

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use chaos::Outcome;

/// How many seeds are run unless `SEEDS` says otherwise.
const SEEDS: u64 = 1_000;
/// A seed that takes longer than this hangs.
const PATIENCE: Duration = Duration::from_secs(120);

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is not a number: {text}")))
}

/// Reports a seed that failed, and how to run it again.
fn report(seed: u64, outcome: &Outcome) -> String {
    let release = if cfg!(debug_assertions) { "" } else { "--release " };
    let again = format!("SEED={seed} cargo test {release}--test simulation seeds -- --nocapture");
    format!("seed {seed}:\n  {}\n  rerun it alone: {again}", outcome.wrong.join("\n  "))
}

#[test]
fn seeds_all_keep_the_promises() {
    if let Some(seed) = number("SEED") {
        let outcome = chaos::run(seed);
        println!("{}", outcome.log.join("\n"));
        assert!(outcome.wrong.is_empty(), "{}", report(seed, &outcome));
        return;
    }
    let seeds = number("SEEDS").unwrap_or(SEEDS);
    assert!(seeds > 0, "SEEDS is 0: nothing would be run");
    let (next, failed, sum) =
        (AtomicU64::new(0), Mutex::new(Vec::new()), Mutex::new(chaos::Tally::default()));
    let begun = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, |it| it.get()) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds {
                        return;
                    }
                    let started = Instant::now();
                    let mut outcome = chaos::run(seed);
                    if started.elapsed() > PATIENCE {
                        outcome.wrong.push(format!("it took {} s", started.elapsed().as_secs()));
                    }
                    sum.lock().unwrap().add(&outcome.tally);
                    if !outcome.wrong.is_empty() {
                        let words = report(seed, &outcome);
                        eprintln!("{words}");
                        failed.lock().unwrap().push(words);
                    }
                }
            });
        }
    });
    println!("{seeds} seeds in {} s: {}", begun.elapsed().as_secs(), sum.lock().unwrap());
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "{} of {seeds} seeds failed:\n{}", failed.len(), failed.join("\n"));
    sum.into_inner().unwrap().assert_everything_happened(seeds);
}

#[test]
fn the_same_seed_gives_the_same_log() {
    for seed in (0..10).chain([186, 4_711]) {
        let (first, second) = (chaos::run(seed).log, chaos::run(seed).log);
        assert!(first.len() > 50, "{} lines", first.len());
        for (one, other) in first.iter().zip(&second) {
            assert_eq!(one, other, "seed {seed}");
        }
        assert_eq!(first.len(), second.len(), "seed {seed}");
    }
}

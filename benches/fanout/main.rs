//! A thousand stations and the cost of each: the real announcer in a process of its own and a crowd of light stations
//! in this one, compared with the bare floor in the same run.
//!
//! `cargo bench --bench fanout -- [--repeat=N] [--write] STATIONS…`, or, where the announcer is reached over another
//! network than loopback and started by another command (see `script/bench-slow-network`),
//! `… -- slow-network --at=ADDRESS --through=WORDS STATIONS…`; `… -- isolation [STATIONS [PAGES]]`; and
//! `… -- recovery` as in `script/measure-recovery`.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod crowd;
mod floor;
mod isolation;
mod measure;
mod plot;
mod process;
mod recovery;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let numbers: Vec<usize> = arguments.iter().filter_map(|argument| argument.parse().ok()).collect();
    match arguments.first().map(String::as_str) {
        Some("floor-server") => floor::serve(numbers[0], &arguments[2]),
        Some("floor-reader") => {
            floor::read(numbers[0], numbers[1] as u16, numbers[2], &arguments[4], &arguments[5]);
        }
        Some("slow-network") => {
            let option =
                |name: &str| arguments.iter().find_map(|it| it.strip_prefix(name)).unwrap().to_owned();
            measure::slow_network(&numbers, &option("--at="), &option("--through="));
        }
        Some("isolation") => {
            let of = |place: usize, usual| numbers.get(place).copied().unwrap_or(usual);
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(isolation::measure(of(0, 200), of(1, 10)));
        }
        Some("recovery") => {
            rlimit::increase_nofile_limit(u64::MAX).unwrap();
            let option =
                |name: &str| arguments.iter().find_map(|it| it.strip_prefix(name)).unwrap().to_owned();
            let (at, through) = (option("--at="), option("--through="));
            let (cut, mend) = (option("--cut="), option("--mend="));
            let network = recovery::Network { at: &at, through: &through, cut: &cut, mend: &mend };
            let runtime = tokio::runtime::Runtime::new().unwrap();
            runtime.block_on(recovery::measure(numbers[0], numbers[1], &network));
        }
        _ => {
            let repeat =
                arguments.iter().find_map(|it| it.strip_prefix("--repeat=")?.parse().ok()).unwrap_or(5);
            let sizes = if numbers.is_empty() { vec![10, 100, 1_000, 10_000] } else { numbers };
            let write = arguments.iter().any(|argument| argument == "--write");
            measure::run(&sizes, repeat, write);
        }
    }
}

//! The figures as a line, as a table in `docs/performance.md`, and as a picture in the same folder.

use std::fmt::Write;
use std::path::Path;

use super::measure::Figures;

const BEGIN: &str = "<!-- written by script/bench-fanout -->\n";
const END: &str = "<!-- end -->\n";

pub fn row(figures: &Figures) -> String {
    let Figures { stations, floor_s, hashed_floor_s, checked_floor_s, whole, framing, .. } = figures;
    format!(
        "{stations} stations: bare floor {} s; clip there after {} s, ratio {}, CPU ratio {}, p99/p50 {}; \
         hashing floor {} s, floor with checks {} s; verified after {} s, {} of the bare floor, ratio {}, CPU ratio {}, \
         p99/p50 {}; idle {:.1} MB, \
         {:.1} KiB each, {:.1} % of a core; + {} MB sending; joined in {:.2} s, after a page {} s, after a \
         restart {} s; {} lost, {} dials failed",
        floor_s.show(3),
        framing.all_s.show(3),
        framing.ratio.show(2),
        framing.cpu_ratio.show(2),
        framing.p99_over_p50.show(2),
        hashed_floor_s.show(3),
        checked_floor_s.show(3),
        whole.all_s.show(3),
        figures.whole_to_bare.show(2),
        whole.ratio.show(2),
        whole.cpu_ratio.show(2),
        whole.p99_over_p50.show(2),
        figures.idle_mb,
        figures.idle_kib_each,
        figures.idle_cpu_percent,
        framing.peak_mb.show(1),
        figures.join_s,
        figures.after_page_s.show(2),
        figures.restart_s.show(2),
        figures.lost,
        figures.failed_dials,
    )
}

pub fn table(all: &[Figures]) -> String {
    let mut table = String::from("| stations |");
    let mut line = |what: &str, of: &dyn Fn(&Figures) -> String| {
        if what.is_empty() {
            all.iter().for_each(|figures| write!(table, " {} |", of(figures)).unwrap());
            write!(table, "\n|---|{}\n", "---|".repeat(all.len())).unwrap();
        } else {
            write!(table, "| {what} |").unwrap();
            all.iter().for_each(|figures| write!(table, " {} |", of(figures)).unwrap());
            table.push('\n');
        }
    };
    line("", &|it| it.stations.to_string());
    line("the bare floor, s", &|it| it.floor_s.show(3));
    line("the clip is there, s", &|it| it.framing.all_s.show(3));
    line("… ratio to the floor", &|it| it.framing.ratio.show(2));
    line("… processor time, ratio", &|it| it.framing.cpu_ratio.show(2));
    line("… p99 of the stations to their median", &|it| it.framing.p99_over_p50.show(2));
    line("the floor whose readers hash, s", &|it| it.hashed_floor_s.show(3));
    line("the floor whose readers open and hash, s", &|it| it.checked_floor_s.show(3));
    line("all have verified, s", &|it| it.whole.all_s.show(3));
    line("… ratio to the bare floor", &|it| it.whole_to_bare.show(2));
    line("… ratio to that which opens and hashes", &|it| it.whole.ratio.show(2));
    line("… processor time, ratio", &|it| it.whole.cpu_ratio.show(2));
    line("… p99 of the stations to their median", &|it| it.whole.p99_over_p50.show(2));
    line("announcer, idle, MB", &|it| format!("{:.1}", it.idle_mb));
    line("… each station, KiB", &|it| format!("{:.1}", it.idle_kib_each));
    line("… while it sends, + MB", &|it| it.framing.peak_mb.show(1));
    line("… % of a core, idle", &|it| format!("{:.1}", it.idle_cpu_percent));
    line("all are back after a page, s", &|it| it.after_page_s.show(2));
    line("all are back after its restart, s", &|it| it.restart_s.show(2));
    line("links lost", &|it| it.lost.to_string());
    table
}

pub fn write(all: &[Figures]) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = docs.join("performance.md");
    let text = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = text.split_once(BEGIN).expect("the place for the table");
    let (_, after) = rest.split_once(END).expect("its end");
    std::fs::write(page, format!("{before}{BEGIN}\n{}\n{END}{after}", table(all))).unwrap();
    std::fs::write(docs.join("fanout.svg"), picture(all)).unwrap();
}

type Curve<'a> = (&'a str, &'a str, &'a dyn Fn(&Figures) -> f64);

/// Draws two logarithmic panels, time and memory against stations.
fn picture(all: &[Figures]) -> String {
    let time: [Curve; 4] = [
        ("bare floor", "#999999", &|it| it.floor_s.middle),
        ("clip is there", "#0072b2", &|it| it.framing.all_s.middle),
        ("floor, opened and hashed", "#e69f00", &|it| it.checked_floor_s.middle),
        ("all have verified", "#d55e00", &|it| it.whole.all_s.middle),
    ];
    let memory: [Curve; 2] = [
        ("announcer, idle", "#0072b2", &|it| it.idle_mb),
        ("while it sends", "#d55e00", &|it| it.idle_mb + it.framing.peak_mb.middle),
    ];
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 860 360\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"860\" height=\"360\" fill=\"white\"/>\n{}{}</svg>\n",
        panel(all, 60, "seconds until the last station", &time),
        panel(all, 490, "MB resident", &memory),
    )
}

fn panel(all: &[Figures], left: i32, title: &str, curves: &[Curve]) -> String {
    const WIDTH: f64 = 340.0;
    const HEIGHT: f64 = 270.0;
    const TOP: f64 = 40.0;
    let values = || curves.iter().flat_map(|(.., of)| all.iter().map(of)).filter(|value| *value > 0.0);
    let low = values().fold(f64::INFINITY, f64::min).log10().floor();
    let high = values().fold(0.0, f64::max).log10().ceil().max(low + 1.0);
    let (first, last) = (all[0].stations as f64, all[all.len() - 1].stations as f64);
    let span = (last.log10() - first.log10()).max(1.0);
    let x = |stations: usize| f64::from(left) + ((stations as f64).log10() - first.log10()) / span * WIDTH;
    let y = |value: f64| TOP + HEIGHT - (value.max(1e-9).log10() - low) / (high - low) * HEIGHT;
    let mut svg = format!("<text x=\"{left}\" y=\"24\" font-weight=\"bold\">{title}</text>\n");
    for decade in low as i32..=high as i32 {
        let (value, at) = (10_f64.powi(decade), y(10_f64.powi(decade)));
        let end = f64::from(left) + WIDTH;
        writeln!(svg, "<path d=\"M{left} {at:.1}H{end:.1}\" stroke=\"#dddddd\"/>").unwrap();
        writeln!(svg, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{value}</text>", left - 6, at + 4.0)
            .unwrap();
    }
    for figures in all {
        let (at, stations) = (x(figures.stations), figures.stations);
        writeln!(svg, "<text x=\"{at:.1}\" y=\"328\" text-anchor=\"middle\">{stations}</text>").unwrap();
    }
    for (index, (name, colour, of)) in curves.iter().enumerate() {
        let points: Vec<String> =
            all.iter().map(|it| format!("{:.1},{:.1}", x(it.stations), y(of(it)))).collect();
        let points = points.join(" ");
        writeln!(svg, "<polyline points=\"{points}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>")
            .unwrap();
        let at = 56 + 16 * index;
        writeln!(svg, "<text x=\"{}\" y=\"{at}\" fill=\"{colour}\">{name}</text>", left + 10).unwrap();
    }
    writeln!(svg, "<text x=\"{left}\" y=\"348\">stations</text>").unwrap();
    svg
}

//! The figures as lines, as a table, and as a picture.

use super::measure::Figures;

pub fn row(figures: &Figures) -> String {
    let Figures { stations, floor_s, checked_floor_s, whole, framing, .. } = figures;
    format!(
        "{stations} stations: floor {} s, with checks {} s; whole {} s, ratio {}, CPU ratio {}, p99/p50 {}; framing only {} s, \
         ratio {}, CPU ratio {}; idle {:.1} MB, {:.1} KiB each, {:.1} % of a core; + {} MB sending; \
         joined in {:.2} s, after a page {} s, after a restart {} s; {} lost, {} dials failed",
        floor_s.show(3),
        checked_floor_s.show(3),
        whole.all_s.show(3),
        whole.ratio.show(2),
        whole.cpu_ratio.show(2),
        whole.p99_over_p50.show(2),
        framing.all_s.show(3),
        framing.ratio.show(2),
        framing.cpu_ratio.show(2),
        figures.idle_mb,
        figures.idle_kib_each,
        figures.idle_cpu_percent,
        whole.peak_mb.show(1),
        figures.join_s,
        figures.after_page_s.show(2),
        figures.restart_s.show(2),
        figures.lost,
        figures.failed_dials,
    )
}

pub fn table(_figures: &[Figures]) -> String {
    String::new()
}

pub fn write(_figures: &[Figures]) {}

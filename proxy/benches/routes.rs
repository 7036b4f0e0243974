//! What a route costs: a lookup among ten and among a hundred thousand, and the memory of each.
//! `cargo bench -p proxy` prints both.

#![expect(missing_docs, reason = "what criterion's macros make has none")]

use std::hint::black_box;

use criterion::{Criterion, criterion_group, criterion_main};
use grid::bench::Town;

const MANY: usize = 100_000;

fn lookups(criterion: &mut Criterion) {
    let before = resident();
    let large = Town::with(MANY);
    let each = resident().saturating_sub(before) / MANY;
    println!("memory of the edge per service that sleeps: {each} bytes, of {MANY}");
    let mut group = criterion.benchmark_group("lookup");
    for (name, town) in [("10 routes", &Town::with(10)), ("100000 routes", &large)] {
        let mut number = 0;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                // A step that visits all of them in no order that a cache could guess.
                number = (number + 7919) % town.len();
                black_box(town.leads_somewhere(number))
            });
        });
        group.bench_function(format!("{name}, one of them"), |bencher| {
            bencher.iter(|| black_box(town.leads_somewhere(3)));
        });
    }
    group.finish();
}

/// Bytes of memory that this process has now.
fn resident() -> usize {
    let text = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").parse::<usize>().expect("a number") * 1024
}

criterion_group!(benches, lookups);
criterion_main!(benches);

//! Row B7: what is said of speed was measured, by programs that anybody can run, beside a floor or a peer.

mod tools;

use std::{collections::BTreeSet, process::Command};

/// The tables that `hack/bench` makes, as it names them to who asks for another.
fn parts() -> BTreeSet<String> {
    let output = Command::new(tools::repository().join("hack/bench")).arg("nothing").output().expect("it starts");
    assert!(!output.status.success(), "there is no such benchmark");
    let said = tools::stderr(&output);
    let (_, parts) = said.split_once("with the parts ").unwrap_or_else(|| panic!("{said}"));
    parts.split_whitespace().map(ToOwned::to_owned).collect()
}

fn read(path: &str) -> String {
    std::fs::read_to_string(tools::repository().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

#[test]
fn b7_every_table_of_the_page_is_made_by_its_command_and_every_command_has_its_table() {
    let page = read("docs/benchmarks.md");
    let marker = |line: &str| Some(line.strip_prefix("<!-- ")?.strip_suffix(" -->")?.to_owned());
    let placed: BTreeSet<_> = page.lines().filter_map(marker).filter(|name| !name.starts_with('/')).collect();
    assert_eq!(placed, parts());
    let programs: String =
        ["converge", "store", "capture", "playlists"].map(|bench| read(&format!("benches/{bench}/main.rs"))).concat();
    for part in placed {
        assert!(programs.contains(&format!("\"{part}\"")), "no program makes {part}");
        let (_, after) = page.split_once(&format!("<!-- {part} -->")).expect("it is there");
        let (table, _) = after.split_once(&format!("<!-- /{part} -->")).unwrap_or_else(|| panic!("{part} has no end"));
        let rows = table.lines().filter(|line| line.starts_with('|')).count();
        assert!(rows >= 4, "{part}: a head, and two sides at least, but {rows} rows");
        assert!(table.contains("Measured "), "{part}: where and when");
    }
}

/// The number with which a cell of a table begins.
fn cell(page: &str, part: &str, row: &str, column: usize) -> f64 {
    let (_, after) = page.split_once(&format!("<!-- {part} -->")).expect("it is there");
    let line = after.lines().find(|line| line.starts_with(&format!("| {row}"))).unwrap_or_else(|| panic!("no {row}"));
    let cell = line.split('|').nth(column).unwrap_or_else(|| panic!("{line}"));
    cell.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_else(|| panic!("{line}"))
}

/// The page says that these goals are reached: whoever measures again and misses one has to say so there.
#[test]
fn b7_the_goals_that_are_said_to_be_reached_are_reached_in_the_tables() {
    let page = read("docs/benchmarks.md");
    for part in ["converge-200", "converge-1000"] {
        assert!(cell(&page, part, "bare client, 32 at a time", 4) >= 0.8, "{part}");
    }
    let rest = |row| cell(&page, "converge-rest", row, 3);
    assert!(cell(&page, "converge-rest", "memory, 1000 Pipelines and Cameras at rest", 2) <= 60.0);
    for row in ["10 minutes of rest", "1000 Pipelines touched", "restart of the operator"] {
        assert!(rest(row) < 1.0, "{row} writes");
    }
    assert!(cell(&page, "agent", "agent", 2) <= 2.0);
    assert!(cell(&page, "store-latency", "one segment of 2 MB", 4) <= 1.3);
    assert!(cell(&page, "store-events", "recorder", 3) >= 0.85, "nine tenths");
    // The recorder waits 3 s for late segments.
    let minute = |column| cell(&page, "store-latency", "a minute", column);
    assert!(minute(3) - 3.0 <= 1.3 * minute(2));
    assert!(cell(&page, "playlists", "replay of 1 h", 5) < 3.0);
}

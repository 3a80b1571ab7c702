//! A benchmark's table: printed, and written to `target/bench/` for `docs/benchmarks.md` to be taken from.

use std::{fmt::Write, fs, path::Path};

/// One part's tables and remarks, as Markdown.
pub struct Report {
    name: &'static str,
    text: String,
}

impl Report {
    /// An empty one; `name` is that of its file and of its place in the document.
    pub fn new(name: &'static str) -> Self {
        Self { name, text: String::new() }
    }

    /// Adds a table; the first row is its head.
    pub fn table(&mut self, rows: &[Vec<String>]) {
        self.text.push('\n');
        for (number, row) in rows.iter().enumerate() {
            writeln!(self.text, "| {} |", row.join(" | ")).expect("a String takes everything");
            if number == 0 {
                writeln!(self.text, "|{}", "---|".repeat(row.len())).expect("a String takes everything");
            }
        }
    }

    /// Adds a paragraph.
    pub fn note(&mut self, text: impl AsRef<str>) {
        writeln!(self.text, "\n{}", text.as_ref()).expect("a String takes everything");
    }

    /// Prints it and writes it down.
    pub fn publish(mut self) {
        self.note(format!("Measured on {}, {}.", machine(), jiff::Timestamp::now().strftime("%Y-%m-%d")));
        println!("\n== {}\n{}", self.name, self.text);
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
        fs::create_dir_all(&folder).expect("a folder for the tables");
        fs::write(folder.join(format!("{}.md", self.name)), self.text.trim_start()).expect("the table is written");
    }
}

/// Cores, processor, memory and kernel: what a figure depends on, and nothing that names the machine.
fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name))?;
        Some(line.split_once(':')?.1.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let processor = field(&read("/proc/cpuinfo"), "model name").unwrap_or_else(|| "an unnamed processor".into());
    let memory: u64 = field(&read("/proc/meminfo"), "MemTotal")
        .and_then(|text| text.trim_end_matches(" kB").parse().ok())
        .unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel: Vec<&str> = kernel.trim().splitn(3, '.').take(2).collect();
    format!("{cores} cores of {processor}, {} GB, Linux {}", memory / 1_000_000, kernel.join("."))
}

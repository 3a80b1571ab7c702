//! Makes sure that the page can be compiled in: a program without its player would show only at the first login.

use std::{fs, path::Path};

fn main() {
    let (package, player) = (Path::new("ui/package.json"), Path::new("ui/node_modules/hls.js/dist/hls.min.js"));
    println!("cargo::rerun-if-changed={}", package.display());
    println!("cargo::rerun-if-changed={}", player.display());
    for file in fs::read_dir("ui").into_iter().flatten().flatten() {
        if file.file_type().is_ok_and(|kind| kind.is_file()) {
            println!("cargo::rerun-if-changed={}", file.path().display());
        }
    }
    if package.exists() && !player.exists() {
        println!("cargo::error=hls.js is missing: run `npm ci --prefix ui`, or `make build`, which does it");
    }
}

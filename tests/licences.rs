//! Every crate that ends up in the program may be distributed with it: its licence is satisfied by the list in deny.toml.
//! cargo-deny (`make deny`) checks more and takes minutes to install; this takes none.

mod tools;

use std::{collections::BTreeSet, process::Command};

/// The entries of `allow` in deny.toml.
fn allowed() -> BTreeSet<String> {
    let text = std::fs::read_to_string(tools::repository().join("deny.toml")).expect("deny.toml is there");
    text.lines()
        .skip_while(|line| !line.starts_with("allow = ["))
        .skip(1)
        .take_while(|line| !line.starts_with(']'))
        .map(|line| line.trim().trim_end_matches(',').trim_matches('"').to_owned())
        .collect()
}

/// Is an SPDX expression satisfied? AND binds closer than OR; `/` is an old way to write OR.
fn satisfied(expression: &str, allowed: &BTreeSet<String>) -> bool {
    let spaced = expression.replace('/', " OR ").replace('(', " ( ").replace(')', " ) ");
    let words: Vec<&str> = spaced.split_whitespace().collect();
    let (holds, rest) = any_of(&words, allowed);
    assert!(rest.is_empty(), "not an SPDX expression: {expression}");
    holds
}

fn any_of<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut holds, mut rest) = all_of(words, allowed);
    while rest.first() == Some(&"OR") {
        let (right, after) = all_of(&rest[1..], allowed);
        (holds, rest) = (holds || right, after);
    }
    (holds, rest)
}

fn all_of<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    let (mut holds, mut rest) = one(words, allowed);
    while rest.first() == Some(&"AND") {
        let (right, after) = one(&rest[1..], allowed);
        (holds, rest) = (holds && right, after);
    }
    (holds, rest)
}

fn one<'a>(words: &'a [&'a str], allowed: &BTreeSet<String>) -> (bool, &'a [&'a str]) {
    match words {
        ["(", inner @ ..] => {
            let (holds, rest) = any_of(inner, allowed);
            assert_eq!(rest.first(), Some(&")"), "a parenthesis stays open");
            (holds, &rest[1..])
        }
        [licence, "WITH", exception, rest @ ..] => (allowed.contains(&format!("{licence} WITH {exception}")), rest),
        [licence, rest @ ..] => (allowed.contains(*licence), rest),
        [] => panic!("an expression ends too early"),
    }
}

#[test]
fn every_dependency_may_be_distributed() {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--format-version=1", "--locked", "--filter-platform=x86_64-unknown-linux-gnu"])
        .current_dir(tools::repository())
        .output()
        .expect("cargo starts");
    assert!(output.status.success(), "{}", tools::stderr(&output));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let allowed = allowed();
    assert!(allowed.contains("Apache-2.0"), "the list in deny.toml is read");
    let refused: Vec<String> = metadata["packages"]
        .as_array()
        .expect("packages")
        .iter()
        .filter(|package| !package["license"].as_str().is_some_and(|licence| satisfied(licence, &allowed)))
        .map(|package| format!("{} {}: {}", package["name"], package["version"], package["license"]))
        .collect();
    assert!(refused.is_empty(), "licences that deny.toml does not allow:\n{}", refused.join("\n"));
}

#[test]
fn expressions_are_read_as_spdx_means_them() {
    let allowed: BTreeSet<String> = ["MIT", "ISC", "Apache-2.0 WITH LLVM-exception"].map(str::to_owned).into();
    for (expression, holds) in [
        ("MIT", true),
        ("GPL-3.0", false),
        ("GPL-3.0 OR MIT", true),
        ("GPL-3.0/MIT", true),
        ("GPL-3.0 AND MIT", false),
        ("ISC AND (GPL-3.0 OR MIT)", true),
        ("GPL-3.0 AND ISC OR MIT", true),
        ("Apache-2.0 WITH LLVM-exception", true),
        ("Apache-2.0", false),
    ] {
        assert_eq!(satisfied(expression, &allowed), holds, "{expression}");
    }
}

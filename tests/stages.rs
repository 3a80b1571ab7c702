//! What `hack/test` makes of its stages, with runners that are none.

mod tools;

use std::{os::unix::fs::PermissionsExt, process::Command};

/// hack/test with one stage while this script stands for npm: did it pass, and its last line.
fn hack_test(stage: &str, npm: &str) -> (bool, String) {
    let folder = tempfile::tempdir().expect("a folder");
    let program = folder.path().join("npm");
    std::fs::write(&program, format!("#!/bin/sh\n{npm}\n")).expect("a writable folder");
    std::fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).expect("ours");
    let path = format!("{}:{}", folder.path().display(), std::env::var("PATH").expect("a PATH"));
    let output = Command::new(tools::repository().join("hack/test"))
        .arg(stage)
        .env("PATH", path)
        .env("DSN_CACHE", folder.path())
        .output()
        .expect("the script starts");
    let said = tools::stdout(&output);
    (output.status.success(), said.lines().last().unwrap_or_default().to_owned())
}

#[test]
fn tests_of_which_none_ran_have_not_passed() {
    assert_eq!(hack_test("page", "echo '# pass 3'; echo '# fail 0'"), (true, "3 passed, 0 failed".to_owned()));
    assert_eq!(hack_test("page", "true"), (false, "0 passed, 1 failed".to_owned()));
    assert_eq!(hack_test("page", "exit 3"), (false, "0 passed, 1 failed".to_owned()));
    assert_eq!(hack_test("page", "echo '# pass 3'; echo '# fail 1'; exit 1"), (false, "3 passed, 1 failed".to_owned()));
}

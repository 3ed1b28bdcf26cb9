//! The house rules that a machine can judge. Few, and each says why it refuses.

use std::collections::HashSet;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

fn root() -> PathBuf {
    Path::new("../..").canonicalize().expect("the root exists")
}

/// Every file that git knows and that is still there, by its path from the root.
fn files() -> Vec<String> {
    let listed = Command::new("git")
        .args(["ls-files", "-z"])
        .current_dir(root())
        .output()
        .expect("git is installed");
    assert!(listed.status.success(), "the house rules are checked in a git checkout");
    let listed = String::from_utf8(listed.stdout).expect("file names are text");
    let files = listed.split_terminator('\0').map(str::to_owned);
    files.filter(|file| root().join(file).is_file()).collect()
}

/// Files ending in one of these, with their text.
fn texts(endings: &[&str]) -> Vec<(String, String)> {
    files()
        .into_iter()
        .filter(|file| endings.iter().any(|ending| file.ends_with(ending)))
        .filter_map(|file| Some((file.clone(), std::fs::read_to_string(root().join(file)).ok()?)))
        .collect()
}

#[track_caller]
fn nothing_to_say(complaints: &[String]) {
    assert!(complaints.is_empty(), "\n{}", complaints.join("\n"));
}

#[test]
fn no_file_names_a_place_of_one_machine() {
    // Assembled, so that this file does not complain about itself.
    let places = [
        format!("{}/", root().display()),
        ["/ro", "ot/"].concat(),
        ["/ho", "me/"].concat(),
        ["../sha", "red"].concat(),
    ];
    let mut complaints = Vec::new();
    for (file, text) in texts(&[""]) {
        if file.ends_with(".lock") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            for place in places.iter().filter(|place| line.contains(*place)) {
                complaints.push(format!("{file}:{}: holds {place}", number + 1));
            }
        }
    }
    nothing_to_say(&complaints);
}

#[test]
fn scripts_and_only_scripts_may_be_run() {
    let mut complaints = Vec::new();
    for file in files() {
        let bytes = std::fs::read(root().join(&file)).unwrap();
        let mode = root().join(&file).metadata().unwrap().permissions().mode();
        match (bytes.starts_with(b"#!") && !bytes.starts_with(b"#!["), mode & 0o111 != 0) {
            (true, false) => complaints.push(format!("{file}: chmod +x, it begins with #!")),
            (false, true) => complaints.push(format!("{file}: chmod -x, nothing can run it")),
            _ => {}
        }
    }
    nothing_to_say(&complaints);
}

#[test]
fn a_test_that_is_ignored_says_why() {
    let ignored = ["#[ign", "ore]"].concat();
    let complaints: Vec<String> = texts(&[".rs"])
        .into_iter()
        .filter(|(_, text)| text.contains(&ignored))
        .map(|(file, _)| format!("{file}: write #[ignore = \"needs ...\"]"))
        .collect();
    nothing_to_say(&complaints);
}

#[test]
fn every_crate_takes_the_lints_of_the_workspace() {
    let complaints: Vec<String> = texts(&["Cargo.toml"])
        .into_iter()
        .filter(|(file, _)| file.starts_with("crates/"))
        .filter(|(_, text)| !text.contains("[lints]\nworkspace = true"))
        .map(|(file, _)| format!("{file}: lacks [lints] workspace = true"))
        .collect();
    nothing_to_say(&complaints);
}

#[test]
fn links_in_the_documentation_lead_somewhere() {
    let mut complaints = Vec::new();
    for (file, text) in texts(&[".md"]) {
        for target in links(&text) {
            if target.contains("://") || target.starts_with("mailto:") {
                continue;
            }
            let (path, anchor) = target.split_once('#').unwrap_or((&target, ""));
            let page = if path.is_empty() {
                root().join(&file)
            } else {
                root().join(&file).parent().unwrap().join(path)
            };
            if !page.exists() {
                complaints.push(format!("{file}: there is no {target}"));
            } else if !anchor.is_empty() && !anchors(&page).contains(anchor) {
                complaints.push(format!("{file}: no heading gives the anchor of {target}"));
            }
        }
    }
    nothing_to_say(&complaints);
}

#[test]
fn the_changelog_has_the_shape_that_its_readers_expect() {
    let text = std::fs::read_to_string(root().join("CHANGELOG.md")).unwrap();
    assert!(text.starts_with("# Changelog\n"), "it begins with its title");
    let versions: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    assert!(!versions.is_empty(), "it has a section");
    for version in &versions {
        let released = version.starts_with(|first: char| first.is_ascii_digit());
        assert!(released || *version == "Unreleased", "## {version}: a version, or Unreleased");
    }
    assert!(text.lines().any(|line| line.starts_with("- ")), "it has entries");
}

/// Targets of inline links, outside of code.
fn links(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut fenced = false;
    for line in text.lines() {
        fenced ^= line.trim_start().starts_with("```");
        let prose = if fenced { String::new() } else { without_code(line) };
        for part in prose.split("](").skip(1) {
            if let Some((target, _)) = part.split_once(')') {
                found.push(target.to_owned());
            }
        }
    }
    found
}

/// Drops what stands between backticks.
fn without_code(line: &str) -> String {
    line.split('`').step_by(2).collect()
}

/// The anchors that the headings of a page get.
fn anchors(page: &Path) -> HashSet<String> {
    let text = std::fs::read_to_string(page).unwrap_or_default();
    text.lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| line.trim_start_matches('#').trim().to_lowercase())
        .map(|heading| {
            let kept = heading.chars().filter(|c| c.is_alphanumeric() || " -_".contains(*c));
            kept.collect::<String>().replace(' ', "-")
        })
        .collect()
}

#[test]
fn the_link_finder_finds_links_and_leaves_code_alone() {
    assert_eq!(links("see [a](b.md#c), `[x](y)`\n```\n[d](e)\n```\n[f](g)"), ["b.md#c", "g"]);
}

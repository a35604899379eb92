//! The documentation names nothing that is not there: tests, files and headings. What its programs do is compiled with the SDK's.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ is in the repository").to_path_buf()
}

/// Files below `folder`, without those of tools.
fn files(folder: &Path, extension: &str, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("is a folder") {
        let path = entry.expect("is readable").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            files(&path, extension, found);
        } else if path.extension().is_some_and(|is| is == extension) {
            found.push(path);
        }
    }
}

fn pages() -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    files(&repository().join("docs"), "md", &mut found);
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md"] {
        found.push(repository().join(name));
    }
    found.into_iter().map(|path| (path.clone(), fs::read_to_string(&path).expect("is text"))).collect()
}

/// As code hosts make anchors of headings.
fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    kept.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_')).map(|c| if c == ' ' { '-' } else { c }).collect()
}

fn anchors(text: &str) -> BTreeSet<String> {
    text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| anchor(line.trim_start_matches('#'))).collect()
}

/// What stands between `](` and `)`.
fn links(text: &str) -> impl Iterator<Item = &str> {
    text.split("](").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link)
}

#[test]
fn every_test_that_the_guides_name_exists() {
    let mut sources = Vec::new();
    files(&repository(), "rs", &mut sources);
    let sources: String = sources.iter().map(|path| fs::read_to_string(path).expect("is text")).collect();
    let mut named = 0;
    for page in ["docs/guarantees.md", "docs/fencing.md"] {
        let text = fs::read_to_string(repository().join(page)).expect("is text");
        // Claims are long; three underscores tell them from fields and calls.
        let claim = |word: &&str| word.matches('_').count() > 2 && word.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        for claim in text.split('`').skip(1).step_by(2).filter(claim) {
            assert!(sources.contains(&format!("fn {claim}(")), "{page} names {claim}, which is nowhere");
            named += 1;
        }
    }
    assert!(named > 20, "found only {named}: is this looking at the right place?");
}

#[test]
fn every_link_leads_somewhere() {
    let mut followed = 0;
    for (page, text) in pages() {
        for link in links(&text).filter(|link| !link.contains("://")) {
            let (file, heading) = link.split_once('#').unwrap_or((link, ""));
            let target = if file.is_empty() { page.clone() } else { page.parent().expect("is in a folder").join(file) };
            assert!(target.exists(), "{}: {link} leads nowhere", page.display());
            if !heading.is_empty() {
                let there = fs::read_to_string(&target).expect("is text");
                assert!(anchors(&there).contains(heading), "{}: {link}: no such heading", page.display());
            }
            followed += 1;
        }
    }
    assert!(followed > 30, "found only {followed}: is this looking at the right place?");
}

#[test]
fn every_block_says_its_language() {
    for (page, text) in pages() {
        let mut open = false;
        for (line, fence) in text.lines().enumerate().filter(|(_, line)| line.trim_start().starts_with("```")) {
            // A block without one would be compiled as Rust, and coloured as nothing.
            assert!(open || fence.trim() != "```", "{}:{}: a block without a language", page.display(), line + 1);
            open = !open;
        }
        assert!(!open, "{}: a block that does not end", page.display());
    }
}

//! Compares the code on the page that explains this crate with the crate.

use std::{fs, path::Path};

#[test]
fn the_page_shows_the_code_of_this_crate() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let page = fs::read_to_string(folder.join("../../docs/writing-a-backend.md")).unwrap();
    // The first line of a block names its file.
    let blocks = page.split("```rust\n// ").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let mut shown = 0;
    for (file, code) in blocks.filter_map(|block| block.split_once('\n')).filter(|(file, _)| file.ends_with(".rs")) {
        let text = fs::read_to_string(folder.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"));
        assert!(text.contains(code), "the page shows code that {file} does not have:\n{code}");
        shown += 1;
    }
    assert!(shown >= 10, "only {shown} blocks name a file");
}

use std::{fs, path::Path};

use comfy_table::{CellAlignment, Table, presets::ASCII_MARKDOWN};
use serde::Serialize;

/// A table of figures in Markdown, with columns of numbers aligned to the right.
pub fn table<const N: usize>(
    header: [&str; N],
    numbers: impl IntoIterator<Item = usize>,
    rows: impl IntoIterator<Item = [String; N]>,
) -> Table {
    let mut table = Table::new();
    table.load_style(ASCII_MARKDOWN);
    table.set_header(header);
    table.add_rows(rows);
    for column in numbers {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table
}

/// Writes figures as a JSON array of objects.
pub fn write_json(file: &Path, figures: &[impl Serialize]) {
    let json = serde_json::to_string_pretty(figures).expect("figures are written as JSON");
    fs::write(file, json + "\n").expect("the file of the figures is written");
}

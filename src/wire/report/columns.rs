//! Text in columns: each as wide as its widest cell, the last one free, no trailing white space.

use super::paint::Paint;

/// Lays out `rows` under `heading`; `painted` may colour a cell after its width is known.
#[must_use]
pub fn columns(
    heading: &[&str],
    rows: &[Vec<String>],
    paint: Paint,
    painted: impl Fn(usize, usize, &str) -> String,
) -> String {
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        let widest = cells.map(|cell| cell.chars().count()).max().unwrap_or(0);
        widest.max(heading[column].chars().count())
    };
    let widths: Vec<_> = (0..heading.len()).map(width).collect();
    let heading: Vec<_> = heading.iter().map(|cell| (*cell).to_owned()).collect();
    let mut text = line(&heading, &widths, |_, cell| paint.heading(cell));
    for (number, row) in rows.iter().enumerate() {
        text.push_str(&line(row, &widths, |column, cell| painted(number, column, cell)));
    }
    text
}

fn line(cells: &[String], widths: &[usize], painted: impl Fn(usize, &str) -> String) -> String {
    let mut line = String::new();
    let mut owed = 0;
    for (column, cell) in cells.iter().enumerate() {
        if !cell.is_empty() {
            line.push_str(&" ".repeat(owed));
            line.push_str(&painted(column, cell));
            owed = 0;
        }
        owed += 2 + widths[column] - cell.chars().count();
    }
    line.push('\n');
    line
}

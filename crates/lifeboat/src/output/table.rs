//! Tables as etcdctl draws them.
//!
//! ```text
//! +----------------+--------+-----------------------------+
//! |    ENDPOINT    | HEALTH |            ERROR            |   titles: upper case, centred,
//! +----------------+--------+-----------------------------+   the odd space on the right
//! | 127.0.0.1:2379 |  false | a long text is wrapped into |   cells: to the right, all of them
//! |                |        |  lines of about equal width |
//! +----------------+--------+-----------------------------+
//! ```
//!
//! A cell wider than [`WRAP_WIDTH`] is wrapped between words, never inside one, such that the lines
//! before the last are filled as evenly as can be.

use unicode_width::UnicodeWidthStr;

/// Where a cell begins to be wrapped; etcdctl's table writer has the same number.
const WRAP_WIDTH: usize = 30;

/// Draws a table; the text ends with a line's end.
///
/// # Panics
/// When a row has not one cell for each header.
pub(crate) fn table(headers: &[&str], rows: &[Vec<String>]) -> String {
    drawn(headers, rows, Cell::wrapped)
}

/// The same with each row in one line, however wide, for who reads it by lines.
///
/// # Panics
/// When a row has not one cell for each header.
pub(crate) fn wide_table(headers: &[&str], rows: &[Vec<String>]) -> String {
    drawn(headers, rows, Cell::whole)
}

fn drawn(headers: &[&str], rows: &[Vec<String>], cell: impl Fn(&str) -> Cell) -> String {
    let titles: Vec<String> = headers.iter().map(|header| header.to_uppercase()).collect();
    let rows: Vec<Vec<Cell>> = rows
        .iter()
        .map(|row| {
            assert_eq!(row.len(), headers.len(), "one cell for each header: {row:?}");
            row.iter().map(|text| cell(text)).collect()
        })
        .collect();
    let widths = column_widths(&titles, &rows);

    let rule = rule(&widths);
    let mut drawn = rule.clone();
    push_line(&mut drawn, titles.iter().zip(&widths).map(|(title, width)| centred(title, *width)));
    drawn.push_str(&rule);
    for row in &rows {
        push_row(&mut drawn, row, &widths);
    }
    drawn.push_str(&rule);
    drawn
}

/// The lines of a cell and the width it asks of its column.
struct Cell {
    lines: Vec<String>,
    width: usize,
}

impl Cell {
    /// Splits a text into lines no wider than [`WRAP_WIDTH`] or its longest word. A text that had to
    /// be split asks for the full [`WRAP_WIDTH`] even when its lines came out shorter.
    fn wrapped(text: &str) -> Self {
        let words: Vec<&str> = text.split([' ', '\n']).collect();
        let longest = words.iter().map(|word| word.width()).max().unwrap_or(0);
        let width = text.width().min(WRAP_WIDTH).max(longest);
        let lines = break_evenly(&words, width).iter().map(|line| line.join(" ")).collect();
        Self { lines, width }
    }
}

impl Cell {
    /// A text in one line.
    fn whole(text: &str) -> Self {
        let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
        Self { width: line.width(), lines: vec![line] }
    }
}

fn column_widths(titles: &[String], rows: &[Vec<Cell>]) -> Vec<usize> {
    let mut widths: Vec<usize> = titles.iter().map(|title| title.width()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = cell.width.max(*width);
        }
    }
    widths
}

fn rule(widths: &[usize]) -> String {
    let mut line = String::from("+");
    for width in widths {
        line.push_str(&"-".repeat(width + 2));
        line.push('+');
    }
    line.push('\n');
    line
}

fn push_row(drawn: &mut String, row: &[Cell], widths: &[usize]) {
    let height = row.iter().map(|cell| cell.lines.len()).max().unwrap_or(0);
    for line in 0..height {
        let cells = row.iter().zip(widths).map(|(cell, width)| {
            right_aligned(cell.lines.get(line).map_or("", String::as_str), *width)
        });
        push_line(drawn, cells);
    }
}

fn push_line(drawn: &mut String, cells: impl Iterator<Item = String>) {
    drawn.push('|');
    for cell in cells {
        drawn.push(' ');
        drawn.push_str(&cell);
        drawn.push_str(" |");
    }
    drawn.push('\n');
}

fn right_aligned(text: &str, width: usize) -> String {
    format!("{}{text}", " ".repeat(width.saturating_sub(text.width())))
}

fn centred(text: &str, width: usize) -> String {
    let gap = width.saturating_sub(text.width());
    format!("{}{text}{}", " ".repeat(gap / 2), " ".repeat(gap - gap / 2))
}

/// Breaks words into lines of at most `limit`, so that the sum of the squares of what is left free
/// is smallest. The last line is free of charge; of equal choices the earlier break wins.
fn break_evenly<'a>(words: &'a [&'a str], limit: usize) -> Vec<&'a [&'a str]> {
    // cost[i] and next[i]: the best way to set words[i..], and where its first line ends.
    let mut cost = vec![usize::MAX; words.len() + 1];
    let mut next = vec![words.len(); words.len() + 1];
    for first in (0..words.len()).rev() {
        if line_width(&words[first..]) <= limit {
            cost[first] = 0;
            continue;
        }
        for end in first + 1..words.len() {
            let width = line_width(&words[first..end]);
            if width > limit {
                break;
            }
            let here = (limit - width).pow(2).saturating_add(cost[end]);
            if here < cost[first] {
                (cost[first], next[first]) = (here, end);
            }
        }
    }

    let mut lines = Vec::new();
    let mut first = 0;
    while first < words.len() {
        lines.push(&words[first..next[first]]);
        first = next[first];
    }
    lines
}

fn line_width(words: &[&str]) -> usize {
    words.iter().map(|word| word.width()).sum::<usize>() + words.len().saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::{table, wide_table};

    fn row(cells: &[&str]) -> Vec<String> {
        cells.iter().map(|cell| (*cell).to_owned()).collect()
    }

    /// The expected text is what `etcdctl -w table snapshot status` prints.
    #[test]
    fn a_wide_table_has_each_row_in_one_line() {
        let long = "a text of more than thirty columns,\nin two lines";
        let drawn = wide_table(&["a", "b"], &[vec![long.to_owned(), "x".to_owned()]]);
        assert_eq!(drawn.lines().count(), 5, "{drawn}");
        assert!(
            drawn.contains("| a text of more than thirty columns, in two lines | x |"),
            "{drawn}"
        );
    }

    #[test]
    fn a_table_is_drawn_as_etcdctl_draws_it() {
        let drawn = table(
            &["hash", "revision", "total keys", "total size"],
            &[row(&["fe01cf57", "10", "7", "2.1 MB"])],
        );
        assert_eq!(
            drawn,
            "\
+----------+----------+------------+------------+
|   HASH   | REVISION | TOTAL KEYS | TOTAL SIZE |
+----------+----------+------------+------------+
| fe01cf57 |       10 |          7 |     2.1 MB |
+----------+----------+------------+------------+
"
        );
    }

    #[test]
    fn a_long_cell_is_wrapped_evenly_and_a_long_word_is_not_cut() {
        let drawn = table(
            &["endpoint", "error"],
            &[
                row(&["https://a-very-long-name-of-a-host.example.org:2379", ""]),
                row(&["b", "context deadline exceeded while it was waiting for a leader"]),
            ],
        );
        assert_eq!(
            drawn,
            "\
+-----------------------------------------------------+--------------------------------+
|                      ENDPOINT                       |             ERROR              |
+-----------------------------------------------------+--------------------------------+
| https://a-very-long-name-of-a-host.example.org:2379 |                                |
|                                                   b |      context deadline exceeded |
|                                                     |     while it was waiting for a |
|                                                     |                         leader |
+-----------------------------------------------------+--------------------------------+
"
        );
    }

    #[test]
    fn a_table_without_rows_has_its_titles_and_three_rules() {
        assert_eq!(table(&["id"], &[]), "+----+\n| ID |\n+----+\n+----+\n");
    }
}

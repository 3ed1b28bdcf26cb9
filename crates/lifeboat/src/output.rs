//! How results are printed: the four formats of etcdctl, byte for byte.
//!
//! ```text
//! -w simple   8e9e05c52164694d, started, n1, http://127.0.0.1:2380, …   values joined by ", "
//! -w table    +-----+------+    borders in ASCII, titles centred, cells to the right
//! -w json     {"header":{"cluster_id":14841639068965178418,…     one line, as Go encodes it
//! -w fields   "Revision" : 5                                     one line a field
//! ```
//!
//! Scripts parse these outputs, so they equal those of the tools that Lifeboat replaces, down to Go's
//! way of escaping a string or writing a duration. Everything here turns values into text; nothing
//! here writes to a terminal but [`print()`] and [`say()`], and these let no control character through.

pub(crate) mod duration;
mod json;
mod quote;
mod table;
mod visible;

use std::{
    fmt,
    io::{self, Write},
};

use crate::report::{Exit, Failure};

pub(crate) use etcd_schema::humanize_bytes;
pub(crate) use json::{is_default, json};
pub(crate) use quote::quote;
pub(crate) use table::{table, wide_table};
pub(crate) use visible::one_line;

/// The shape of a result on stdout
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// Comma-separated values, one line a record
    #[default]
    Simple,
    /// A table with borders
    Table,
    /// One line of JSON
    Json,
    /// One line a field, `"Name" : value`
    Fields,
}

/// One record of `simple`: the cells of a table row, joined.
pub(crate) fn simple(cells: &[String]) -> String {
    cells.iter().map(|cell| one_line(cell)).collect::<Vec<_>>().join(", ")
}

/// Rows as `simple`, `table` or `fields` have them.
pub(crate) fn rows(format: Format, headers: &[&str], rows: &[Vec<String>]) -> String {
    match format {
        Format::Table => table(headers, rows),
        Format::Fields => {
            let line = |(name, value): (&&str, &String)| format!("\"{name}\" : {}\n", quote(value));
            let record = |row: &Vec<String>| headers.iter().zip(row).map(line).collect::<String>();
            rows.iter().map(record).collect::<Vec<_>>().join("\n")
        }
        Format::Simple | Format::Json => rows.iter().map(|row| simple(row) + "\n").collect(),
    }
}

/// Writes to stderr. Where nobody can read it, what is being done goes on all the same.
pub(crate) fn say(text: fmt::Arguments<'_>, end: &str) {
    let text = text.to_string();
    let text = visible::visible(&text) + end;
    let _ = crate::recover::above(|| io::stderr().write_all(text.as_bytes()));
}

/// Writes `text` to stdout. A reader that went away (`| head`) is not an error worth a message.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    crate::recover::take_away();
    let mut stdout = io::stdout().lock();
    match stdout.write_all(visible::visible(text).as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(error) => Err(Failure::new(
            Exit::Failed,
            format!(
                "what was to be done is done, but the result cannot be written to stdout: {error}"
            ),
            "see to where stdout leads",
        )),
    }
}

//! In which line of the file a setting stands: what is sound YAML is judged when nobody knows lines any more.

use serde::{Deserialize, de::IgnoredAny};
use serde_saphyr::Spanned;
use std::ops::Range;

/// Where each host begins.
#[derive(Deserialize)]
struct Hosts {
    #[serde(default)]
    hosts: Vec<Spanned<IgnoredAny>>,
}

/// The lines of a file that was read.
pub(super) struct Lines<'y> {
    all: Vec<&'y str>,
    hosts: Vec<Range<usize>>,
    labels: Vec<String>,
}

impl<'y> Lines<'y> {
    /// `labels` are what the hosts are called, in their order.
    pub(super) fn of(yaml: &'y str, labels: Vec<String>) -> Self {
        let all: Vec<_> = yaml.lines().collect();
        let hosts = serde_saphyr::from_str::<Hosts>(yaml).map(|file| file.hosts);
        let line = |host: &Spanned<IgnoredAny>| usize::try_from(host.referenced.line()).ok();
        let begins: Vec<_> =
            hosts.into_iter().flatten().filter_map(|host| line(&host)?.checked_sub(1)).collect();
        let ends = begins.iter().skip(1).copied().chain([all.len()]);
        // Several hosts may stand in one line.
        let hosts = begins.iter().zip(ends).map(|(begin, end)| *begin..end.max(begin + 1));
        Self { hosts: hosts.collect(), all, labels }
    }

    /// The line, from 1, of a setting as a problem names it.
    pub(super) fn line_of(&self, setting: &str) -> Option<usize> {
        let of_host = self.labels.iter().zip(&self.hosts).find_map(|(label, lines)| {
            let rest = setting.strip_prefix("hosts.")?.strip_prefix(label.as_str())?;
            (rest.is_empty() || rest.starts_with('.')).then_some((rest, lines))
        });
        let found = match of_host {
            None => self.find(setting.split(':').next()?, 0..self.all.len()),
            Some((rest, lines)) => {
                let key = rest.rsplit('.').next().filter(|key| !key.is_empty());
                let first = self.hosts.first().map_or(0, |first| first.start);
                let last = self.hosts.last().map_or(0, |last| last.end);
                let everywhere_else = [0..first, last..self.all.len()];
                let said = key.and_then(|key| {
                    let mut places = std::iter::once(lines.clone()).chain(everywhere_else);
                    places.find_map(|place| self.find(key, place))
                });
                said.or(Some(lines.start))
            }
        };
        found.map(|line| line + 1)
    }

    /// The first of these lines that has the key.
    fn find(&self, key: &str, mut lines: Range<usize>) -> Option<usize> {
        let is_key = |line: &str| {
            let part_of_a_word = |c: char| c.is_alphanumeric() || c == '-';
            let begins = line.match_indices(key).any(|(at, _)| {
                let after = line[at + key.len()..].trim_start_matches(['"', '\'']);
                after.starts_with(':') && !line[..at].ends_with(part_of_a_word)
            });
            begins && !line.trim_start().starts_with('#')
        };
        lines.find(|line| self.all.get(*line).is_some_and(|line| is_key(line)))
    }
}

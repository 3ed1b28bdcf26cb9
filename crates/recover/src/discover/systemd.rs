//! A service as systemd would start it, from the text of `systemctl cat`.
//!
//! ```text
//!   # /lib/systemd/system/etcd.service             where the lines below are from
//!   [Service]
//!   Environment=ETCD_NAME=%H                        specifiers: the host's name
//!   EnvironmentFile=-/etc/default/%p                - : need not be there; wins over Environment=
//!   ExecStart=/usr/bin/etcd $DAEMON_ARGS \          goes on in the next line
//!     --name=${ETCD_NAME}
//!   # /etc/systemd/system/etcd.service.d/own.conf   a drop-in: read after, so what it says last holds
//!   [Service]
//!   ExecStart=                                      an empty value forgets what was said before
//!   ExecStart=/opt/etcd/etcd
//! ```

pub(crate) mod env_file;
mod words;

pub(crate) use words::words;

use super::setting::Variable;

/// What a unit says of its service. Nothing is replaced in it yet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Its full name, `etcd.service`.
    pub(crate) name: String,
    /// The name of its host, for `%H`.
    pub(crate) hostname: String,
    /// `ExecStart=`, one line each.
    pub(crate) exec_start: Vec<String>,
    /// `Environment=`, in order.
    pub(crate) environment: Vec<Variable>,
    /// `EnvironmentFile=`: paths, without the dash.
    pub(crate) environment_files: Vec<String>,
    /// `User=`.
    pub(crate) user: Option<String>,
    /// `Group=`.
    pub(crate) group: Option<String>,
    /// `WorkingDirectory=`.
    pub(crate) working_directory: Option<String>,
}

impl Unit {
    /// Reads what `systemctl cat` printed of the unit.
    pub(crate) fn parse(name: &str, hostname: &str, text: &str) -> Self {
        let mut unit =
            Self { name: name.to_owned(), hostname: hostname.to_owned(), ..Self::default() };
        let mut section = String::new();
        for line in logical_lines(text) {
            if line.starts_with('[') {
                section.clone_from(&line);
            } else if let Some((key, value)) = line.split_once('=')
                && section == "[Service]"
            {
                unit.set(key.trim(), value.trim());
            }
        }
        unit
    }

    fn set(&mut self, key: &str, value: &str) {
        match key {
            "ExecStart" => listed(&mut self.exec_start, value, |value| vec![value.to_owned()]),
            "Environment" => {
                let from = format!("Environment= of {}", self.name);
                let read = |value: &str| {
                    let words = words(value).into_iter().map(|word| self.specified(&word));
                    words.filter_map(|word| Variable::parse(&word, &from)).collect()
                };
                let read = if value.is_empty() { Vec::new() } else { read(value) };
                listed(&mut self.environment, value, |_| read);
            }
            "EnvironmentFile" => {
                let path = self.specified(value.trim_start_matches('-'));
                listed(&mut self.environment_files, value, |_| vec![path]);
            }
            "User" => self.user = self.plain(value),
            "Group" => self.group = self.plain(value),
            "WorkingDirectory" => {
                self.working_directory = self.plain(value.trim_start_matches('-'));
            }
            _ => {}
        }
    }

    fn plain(&self, value: &str) -> Option<String> {
        Some(self.specified(value)).filter(|value| !value.is_empty())
    }

    /// Replaces specifiers. Those that no etcd's unit has a use for stay as written.
    fn specified(&self, text: &str) -> String {
        let mut out = String::with_capacity(text.len());
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            match (c, c == '%') {
                (_, false) => out.push(c),
                (_, true) => match rest.next() {
                    Some('%') => out.push('%'),
                    Some(letter) => match self.specifier(letter) {
                        Some(value) => out.push_str(value),
                        None => out.extend(['%', letter]),
                    },
                    None => out.push('%'),
                },
            }
        }
        out
    }

    fn specifier(&self, letter: char) -> Option<&str> {
        let stem = self.name.rsplit_once('.').map_or(self.name.as_str(), |(stem, _)| stem);
        let (prefix, instance) = stem.split_once('@').unwrap_or((stem, ""));
        Some(match letter {
            'H' => &self.hostname,
            'l' => self.hostname.split('.').next().unwrap_or_default(),
            'n' => &self.name,
            'N' => stem,
            'p' | 'P' => prefix,
            'i' | 'I' => instance,
            'j' | 'J' => prefix.rsplit('-').next().unwrap_or(prefix),
            'E' => "/etc",
            'S' => "/var/lib",
            't' => "/run",
            'C' => "/var/cache",
            'L' => "/var/log",
            'T' => "/tmp",
            'V' => "/var/tmp",
            _ => return None,
        })
    }

    /// The variables that its process gets: `Environment=`, then its files, whose texts `read` gives.
    pub(crate) fn variables(&self, read: impl Fn(&str) -> Option<String>) -> Vec<Variable> {
        let mut all = self.environment.clone();
        for path in &self.environment_files {
            let text = read(path).unwrap_or_default();
            let read = env_file::assignments(&text).into_iter();
            all.extend(read.map(|(name, value)| Variable { name, value, from: path.clone() }));
        }
        all
    }

    /// The arguments of its commands, the programs first, with variables replaced.
    pub(crate) fn commands(&self, variables: &[Variable]) -> Vec<Vec<String>> {
        let commands = self.exec_start.iter().flat_map(|line| {
            let words = words(line);
            let parts: Vec<_> = words.split(|word| word == ";").map(<[_]>::to_vec).collect();
            parts.into_iter().filter(|words| !words.is_empty())
        });
        commands.map(|words| self.command(words, variables)).collect()
    }

    fn command(&self, mut words: Vec<String>, variables: &[Variable]) -> Vec<String> {
        let prefix: String = words[0].chars().take_while(|c| "@-:+!|".contains(*c)).collect();
        words[0].drain(..prefix.len());
        if prefix.contains('@') && words.len() > 1 {
            words.remove(1);
        }
        let words = words.iter().map(|word| self.specified(word));
        if prefix.contains(':') {
            return words.collect();
        }
        words.flat_map(|word| replaced(&word, variables)).collect()
    }
}

/// A list's setting: an empty value forgets what was said before.
fn listed<T>(list: &mut Vec<T>, value: &str, read: impl FnOnce(&str) -> Vec<T>) {
    match value {
        "" => list.clear(),
        _ => list.extend(read(value)),
    }
}

/// Lines without comments; those that end with a backslash joined with the next that is none.
fn logical_lines(text: &str) -> Vec<String> {
    let mut lines = Vec::new();
    let mut open = String::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with(['#', ';']) {
            continue;
        }
        match line.strip_suffix('\\') {
            Some(part) => {
                open.push_str(part);
                open.push(' ');
            }
            None => {
                open.push_str(line);
                lines.push(std::mem::take(&mut open).trim().to_owned());
            }
        }
    }
    lines.push(open.trim().to_owned());
    lines.retain(|line| !line.is_empty());
    lines
}

/// A word of a command with its variables replaced: `$NAME` alone becomes any number of words, `${NAME}` is
/// replaced within its word, and `$$` is a dollar sign.
fn replaced(word: &str, variables: &[Variable]) -> Vec<String> {
    let value = |name: &str| Variable::last(variables, name).map_or("", |v| v.value.as_str());
    match word.strip_prefix('$') {
        Some(name) if env_file::is_name(name) => words(value(name)),
        _ => vec![braces_replaced(word, value)],
    }
}

fn braces_replaced<'a>(word: &str, value: impl Fn(&str) -> &'a str) -> String {
    let mut out = String::new();
    let mut rest = word;
    while let Some(at) = rest.find('$') {
        let (before, after) = (&rest[..at], &rest[at + 1..]);
        out.push_str(before);
        let name = after.strip_prefix('{').and_then(|s| s.split_once('}'));
        rest = match name.filter(|(name, _)| env_file::is_name(name)) {
            Some((name, behind)) => {
                out.push_str(value(name));
                behind
            }
            None => {
                out.push('$');
                after.strip_prefix('$').unwrap_or(after)
            }
        };
    }
    out + rest
}

#[cfg(test)]
mod tests;

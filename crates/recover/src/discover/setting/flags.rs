//! etcd's command line, by the rules of Go's `flag`.
//!
//! ```text
//!   --name=a    -name=a    --name a    -name a     all the same
//!   --auto-tls             true; a flag that is on or off takes no word after it
//!   --auto-tls=false
//!   --                     ends it, and so does a word that is no flag
//! ```

/// Flags that are on or off.
const SWITCHES: [&str; 19] = [
    "auto-tls",
    "client-cert-auth",
    "debug",
    "enable-grpc-gateway",
    "enable-pprof",
    "enable-v2",
    "experimental-compact-hash-check-enabled",
    "experimental-enable-distributed-tracing",
    "experimental-enable-lease-checkpoint",
    "experimental-enable-lease-checkpoint-persist",
    "experimental-initial-corrupt-check",
    "experimental-memory-mlock",
    "experimental-txn-mode-write-with-shared-buffer",
    "force-new-cluster",
    "initial-election-tick-advance",
    "peer-auto-tls",
    "peer-client-cert-auth",
    "pre-vote",
    "strict-reconfig-check",
];

/// Names and values, in order.
pub(super) fn parse(arguments: &[String]) -> Vec<(String, String)> {
    let mut flags = Vec::new();
    let mut rest = arguments.iter().peekable();
    while let Some(word) = rest.next() {
        let Some(flag) = word.strip_prefix("--").or_else(|| word.strip_prefix('-')) else {
            break;
        };
        if flag.is_empty() {
            break;
        }
        if let Some((name, value)) = flag.split_once('=') {
            flags.push((name.to_owned(), value.to_owned()));
            continue;
        }
        // A switch that is not in the list is told by the flag that follows it.
        let switch =
            SWITCHES.contains(&flag) || rest.peek().is_none_or(|next| next.starts_with("--"));
        let value = if switch { "true" } else { rest.next().map_or("", String::as_str) };
        flags.push((flag.to_owned(), value.to_owned()));
    }
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(line: &str, expected: &[(&str, &str)]) {
        let words: Vec<_> = line.split(' ').map(str::to_owned).collect();
        let flags = parse(&words);
        let flags: Vec<_> = flags.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
        assert_eq!(flags, expected, "{line}");
    }

    #[test]
    fn one_dash_or_two_and_a_sign_or_a_blank_are_the_same() {
        for line in ["--name=a", "-name=a", "--name a", "-name a"] {
            check(line, &[("name", "a")]);
        }
        check(
            "--initial-cluster a=http://x:1,b=http://y:2",
            &[("initial-cluster", "a=http://x:1,b=http://y:2")],
        );
    }

    #[test]
    fn a_switch_takes_no_word_after_it() {
        check("--client-cert-auth --name a", &[("client-cert-auth", "true"), ("name", "a")]);
        check(
            "--auto-tls=false --new-switch --name a",
            &[("auto-tls", "false"), ("new-switch", "true"), ("name", "a")],
        );
        check("--name a --force-new-cluster", &[("name", "a"), ("force-new-cluster", "true")]);
    }

    #[test]
    fn a_word_that_is_no_flag_ends_the_line() {
        check("--name a x --data-dir /d", &[("name", "a")]);
        check("-- --data-dir /d", &[]);
    }
}

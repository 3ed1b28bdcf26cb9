//! What to do about an error, in the words of objects.
//!
//! The libraries below are those of the command line, and speak of its flags. Whoever reads a condition has none.

/// What they say, and what is said here.
const WORDS: [(&str, &str); 18] = [
    (
        "give the authority that signed the server's certificate with --cacert",
        "put the authority that signed the server's certificate into the Secret of spec.cluster.tls, as `ca.crt`",
    ),
    (
        "give a client certificate with --cert and --key",
        "put a client certificate and its key into the Secret of spec.cluster.tls, as `tls.crt` and `tls.key`",
    ),
    ("check the file given with --cacert", "check `ca.crt` in the Secret of spec.cluster.tls"),
    (
        "name the cluster's authority with --cacert",
        "put the cluster's authority into the Secret of spec.cluster.tls, as `ca.crt`",
    ),
    (
        "check the path, the file's permissions, and that it is PEM",
        "put PEM into the Secret of spec.cluster.tls",
    ),
    ("give the PEM file that holds the certificate", "put the certificate there, as PEM"),
    (
        "give a user with --user, or in the environment",
        "name a Secret with `username` and `password` in spec.cluster.authSecretName",
    ),
    (
        "give the user with --user, not in the endpoint",
        "name a Secret with `username` and `password` in spec.cluster.authSecretName instead",
    ),
    (
        "check the user and the password",
        "check `username` and `password` in the Secret of spec.cluster.authSecretName",
    ),
    ("leave out the user", "leave out spec.cluster.authSecretName"),
    (", or raise --command-timeout", ""),
    (", or raise --dial-timeout", ""),
    (
        "name its recipients (--recipient, LIFEBOAT_RECIPIENTS, `recipients` in the config file), or say that it is meant (--unencrypted, `unencrypted: true`)",
        "name its recipients in spec.encryption.recipients of the BackupStore, or say there that it is meant: `unencrypted: true`",
    ),
    ("wait for the other writer (--wait 5m), or stop it", "wait for the other writer, or stop it"),
    (
        "`lifeboat backup --repo URL` makes a repository of an empty place",
        "the first backup makes a repository of an empty place",
    ),
    (
        "give a folder, or a URL like s3://bucket/prefix?endpoint=https://host&region=NAME",
        "write it as s3://bucket/prefix, and endpoint and region in spec.options",
    ),
    (
        "free space there, or name another folder that can be written to: --spool-dir",
        "give the operator's spool volume more room (the chart's spool.sizeLimit)",
    ),
    ("see `lifeboat list`", "see all that the store has, by `sync: true` in its BackupStore"),
];

/// The same advice for who writes objects.
pub(crate) fn in_objects(remedy: &str) -> String {
    let said = |text: String, (theirs, ours): &(&str, &str)| match text.contains(theirs) {
        true => text.replace(theirs, ours),
        false => text,
    };
    WORDS.iter().fold(remedy.to_owned(), said)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failure::Failure;
    use backup::TargetError;
    use etcd_live::{Endpoint, TlsFault};
    use repository::store::Store;

    #[test]
    fn no_advice_in_an_object_is_about_flags() {
        let store = Store::open("nonsense://x", &Default::default()).unwrap_err();
        let remedies = [
            TlsFault::UnknownAuthority.remedy(),
            TlsFault::ClientCertificateWanted.remedy(),
            "http://user@host".parse::<Endpoint>().unwrap_err().remedy(),
            store.remedy(),
        ];
        for remedy in remedies {
            let ours = Failure::settings("x", remedy).remedy;
            assert!(ours.contains("spec.") && !ours.contains("--"), "{remedy} became {ours}");
        }
        let exposed = TargetError::Exposed { cluster: "prod".parse().unwrap() };
        let exposed = Failure::from(daemon::jobs::Failure::from(&exposed));
        assert!(exposed.remedy.contains("spec.encryption.recipients"), "{exposed:?}");
        assert!(!exposed.remedy.contains("--"), "{exposed:?}");
    }

    #[test]
    fn what_names_no_flag_stays_as_it_is() {
        assert_eq!(in_objects("check the credentials"), "check the credentials");
    }
}

//! Who may ask the daemon.

use testbed::{Certificates, Tool};

use crate::{Daemon, Settings, lifeboat, minutes_ago, text};

const TOKEN: &str = "bearer-token-0b7d51a9c4";

fn yaml(http: &str) -> String {
    format!(
        "clusters: [{{name: prod, endpoints: ['http://127.0.0.1:1'], repositories: [disk], schedule: {{cron: '{}'}}}}]
repositories: [{{name: disk, url: FOLDER/repo}}]
http: {{{http}}}
",
        minutes_ago(60)
    )
}

#[test]
fn with_tls_and_a_token_only_who_has_it_sees_metrics_and_a_new_token_is_taken_with_new_settings() {
    let settings = Settings::new("");
    let certificates = Certificates::make_in(&settings.path("tls"));
    let (cert, key) = certificates.server();
    settings.secret("token", TOKEN);
    let yaml = yaml(&format!(
        "listen: '127.0.0.1:0', token-file: FOLDER/token, tls: {{cert: '{}', key: '{}'}}",
        cert.display(),
        key.display()
    ));
    settings.write(&yaml);
    let mut daemon = Daemon::start_as(&settings, "https", "log");
    assert_eq!(daemon.ask("/healthz", &[]).0, 0, "not a certificate that everybody knows");
    daemon.curl = vec!["--cacert".to_owned(), text(&certificates.ca()).to_owned()];
    for (path, status) in [("/healthz", 200), ("/readyz", 200), ("/metrics", 401), ("/status", 401)]
    {
        assert_eq!(daemon.ask(path, &[]).0, status, "{path}");
    }
    let with = |token: &str| format!("authorization: Bearer {token}");
    let status = |token: &str| daemon.ask("/metrics", &["--header", &with(token)]).0;
    assert_eq!((status(TOKEN), status("other"), status("")), (200, 401, 401));

    settings.secret("token", "another-token");
    daemon.signal("HUP");
    daemon.until_said("settings were read again");
    assert_eq!((status(TOKEN), status("another-token")), (401, 200));
    daemon.stop();
}

#[test]
fn an_address_that_others_reach_needs_tls_and_a_token() {
    let settings = Settings::new(&yaml("listen: '0.0.0.0:0'"));
    let certificates = Certificates::make_in(&settings.path("tls"));
    let (cert, key) = certificates.server();
    let tls = format!("tls: {{cert: '{}', key: '{}'}}", cert.display(), key.display());
    settings.secret("token", TOKEN);
    let lifeboat: Tool = lifeboat();
    for http in [
        "listen: '0.0.0.0:0'".to_owned(),
        "listen: '0.0.0.0:0', token-file: FOLDER/token".to_owned(),
        format!("listen: '[::]:0', {tls}"),
    ] {
        settings.write(&yaml(&http));
        let run = lifeboat.run(["serve", "--config", text(&settings.file())]).code_is(2);
        run.stderr_has(&["http.listen", "token-file", "help: "]);
    }
}

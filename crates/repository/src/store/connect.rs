//! From a store's URL and options to OpenDAL's operator for it.
//!
//! Where credentials come from, first found wins: [`StoreOptions::credentials`]; the provider's variables; its files and
//! profiles; a role by web identity (IRSA, workload identity); the metadata of the machine or container.
//! Variables of the AWS SDKs for the endpoint (`AWS_ENDPOINT_URL_S3`, `AWS_ENDPOINT_URL`), and
//! `STORAGE_EMULATOR_HOST` of Google's, are heeded too.

use super::{
    StoreError,
    client::transport,
    contact::{Contact, FIRST_CONTACT},
    options::{Kind, RemoteLocation, Secret, StoreOptions},
};
use opendal::{
    Builder, OperationContext, Operator,
    layers::{RetryLayer, TimeoutLayer},
    services::{Azblob, Gcs, Oss, S3},
};
use std::{env, fs, sync::Arc, time::Duration};

/// How long a silent store is waited for unless `timeout` says otherwise.
const PATIENCE_SECONDS: u32 = 60;

/// How much longer an upload may take as a whole: completing one makes the store put its parts together.
const UPLOAD_FACTOR: u32 = 5;

/// How often a request is tried again unless `retries` says otherwise: with the delays below, for about 15 seconds.
/// A store that has never answered is given up [earlier](super::contact).
const RETRIES: u32 = 5;
const RETRY_DELAY_MIN: Duration = Duration::from_millis(250);
const RETRY_DELAY_MAX: Duration = Duration::from_secs(10);

/// An operator, and what a [`Remote`](super::remote::Remote) must know of its store.
pub(super) struct Connection {
    pub(super) operator: Operator,
    /// The provider is known to keep objects from being overwritten, so that nobody has to try.
    pub(super) is_known_create_only: bool,
    /// Completing a large object is not create-only there, as OpenDAL does not ask for it.
    pub(super) has_plain_completion: bool,
    /// The store may lock objects, and tells so in the headers of S3.
    pub(super) has_object_lock: bool,
    /// Whether it has ever answered.
    pub(super) contact: Arc<Contact>,
    /// How often a request is tried again.
    pub(super) retries: u32,
    /// How long a call without a stream of bytes may take with all its retries.
    pub(super) bound: Duration,
}

/// Makes the operator; sends nothing.
pub(super) fn connect(
    location: &RemoteLocation,
    options: &StoreOptions,
) -> Result<Connection, StoreError> {
    let patience = location.number("timeout", PATIENCE_SECONDS, 3_600)?;
    let retries = location.number("retries", RETRIES, 100)?;
    let patience = Duration::from_secs(patience.max(1).into());
    let first_contact = location.get("retries").is_none().then_some(FIRST_CONTACT);
    let contact = Arc::new(Contact::new(options.while_waiting.clone(), first_contact));
    let transport = transport(location, patience, contact.clone())?;
    let context = OperationContext::new().with_http_transport(transport);
    let endpoint = endpoint(location)?;
    let operator = match location.kind {
        Kind::S3 => build(location, s3(location, options, endpoint.as_deref())?),
        Kind::Gcs => build(location, gcs(location, endpoint.as_deref())?),
        Kind::Azblob => build(location, azblob(location, options, endpoint.as_deref())?),
        Kind::Oss => build(location, oss(location, options, endpoint.as_deref())?),
    }?;
    let retry = RetryLayer::new()
        .with_jitter()
        .with_min_delay(RETRY_DELAY_MIN)
        .with_max_delay(RETRY_DELAY_MAX)
        .with_max_times(usize::try_from(retries).expect("at most 100"));
    let timeout =
        TimeoutLayer::new().with_timeout(patience).with_io_timeout(patience * UPLOAD_FACTOR);
    Ok(Connection {
        operator: operator.with_context(context).layer(timeout).layer(retry),
        // An endpoint of one's own can be anything: rclone, for one, ignores the condition.
        is_known_create_only: endpoint.is_none() || location.kind != Kind::S3,
        has_plain_completion: location.kind == Kind::Gcs,
        has_object_lock: location.kind == Kind::S3,
        contact,
        retries,
        bound: patience * 2 + RETRY_DELAY_MAX * 2,
    })
}

fn build(location: &RemoteLocation, builder: impl Builder) -> Result<Operator, StoreError> {
    // Its message names what is wrong in our settings; nothing was sent yet.
    Operator::new(builder).map_err(|e| location.bad(location.kind.scheme(), e.message()))
}

/// Where requests go, if not to the provider's own place.
fn endpoint(location: &RemoteLocation) -> Result<Option<String>, StoreError> {
    if let Some(endpoint) = location.get("endpoint") {
        return Ok(Some(endpoint.trim_end_matches('/').to_owned()));
    }
    let names: &[&str] = match location.kind {
        Kind::S3 => &["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"],
        Kind::Gcs => &["STORAGE_EMULATOR_HOST"],
        Kind::Azblob | Kind::Oss => &[],
    };
    let Some((name, value)) = names.iter().find_map(|name| Some((*name, variable(name)?))) else {
        return Ok(None);
    };
    // The emulator's variable is often without a scheme, and never with TLS then.
    let value = match value.contains("://") || location.kind != Kind::Gcs {
        true => value,
        false => format!("http://{value}"),
    };
    location.check_endpoint(name, &value)?;
    Ok(Some(value.trim_end_matches('/').to_owned()))
}

fn s3(
    location: &RemoteLocation,
    options: &StoreOptions,
    endpoint: Option<&str>,
) -> Result<S3, StoreError> {
    let mut s3 = S3::default().bucket(&location.bucket).root(&root(location));
    let region = location.get("region").map(str::to_owned);
    let region =
        region.or_else(|| variable("AWS_REGION")).or_else(|| variable("AWS_DEFAULT_REGION"));
    match (region, endpoint) {
        (Some(region), _) => s3 = s3.region(&region),
        (None, Some(_)) => s3 = s3.region("us-east-1"),
        (None, None) => return Err(location.bad("region", "give it, or set AWS_REGION")),
    }
    // The builder reads variables of its own if it is given none.
    s3 = s3.endpoint(endpoint.unwrap_or("https://s3.amazonaws.com"));
    if !location.flag("path-style")?.unwrap_or(endpoint.is_some()) {
        s3 = s3.enable_virtual_host_style();
    }
    if let Some(credentials) = &options.credentials {
        s3 = s3
            .access_key_id(&credentials.access_key_id)
            .secret_access_key(credentials.secret_access_key.reveal());
        if let Some(token) = &credentials.session_token {
            s3 = s3.session_token(token.reveal());
        }
    }
    if location.flag("anonymous")? == Some(true) {
        s3 = s3.skip_signature();
    }
    if variable("AWS_EC2_METADATA_DISABLED").is_some_and(|value| value.eq_ignore_ascii_case("true"))
    {
        s3 = s3.disable_ec2_metadata();
    }
    if let Some(profile) = location.get("profile") {
        s3 = s3.profile(profile);
    }
    if let Some(role) = location.get("role-arn") {
        s3 = s3.role_arn(role);
    }
    if let Some(id) = location.get("external-id") {
        s3 = s3.external_id(id);
    }
    if let Some(class) = location.get("storage-class") {
        s3 = s3.default_storage_class(class);
    }
    if let Some(algorithm) = location.get("checksum") {
        s3 = s3.checksum_algorithm(algorithm);
    }
    Ok(match (location.get("sse"), location.get("sse-kms-key")) {
        (Some("kms"), Some(key)) => s3.server_side_encryption_with_customer_managed_kms_key(key),
        (_, Some(_)) => return Err(location.bad("sse-kms-key", "it goes with sse=kms")),
        (Some("kms"), None) => s3.server_side_encryption_with_aws_managed_kms_key(),
        (Some("aes256"), None) => s3.server_side_encryption_with_s3_key(),
        (Some("customer"), None) => {
            s3.server_side_encryption_with_customer_key("AES256", &customer_key(location)?)
        }
        (None, None) => s3,
        _ => return Err(location.bad("sse", "it is aes256, kms or customer")),
    })
}

fn gcs(location: &RemoteLocation, endpoint: Option<&str>) -> Result<Gcs, StoreError> {
    let mut gcs = Gcs::default().bucket(&location.bucket).root(&root(location));
    if let Some(endpoint) = endpoint {
        gcs = gcs.endpoint(endpoint);
    }
    if let Some(file) = location.get("credential-file") {
        gcs = gcs.credential_path(file);
    }
    if let Some(class) = location.get("storage-class") {
        gcs = gcs.default_storage_class(class);
    }
    if location.flag("anonymous")? == Some(true) {
        gcs = gcs.skip_signature();
    }
    Ok(gcs)
}

fn azblob(
    location: &RemoteLocation,
    options: &StoreOptions,
    endpoint: Option<&str>,
) -> Result<Azblob, StoreError> {
    let mut azblob = Azblob::default().container(&location.bucket).root(&root(location));
    let account = location.get("account").map(str::to_owned);
    let account = account
        .or_else(|| options.credentials.as_ref().map(|given| given.access_key_id.clone()))
        .or_else(|| variable("AZURE_STORAGE_ACCOUNT"));
    let endpoint = match (endpoint, &account) {
        (Some(endpoint), _) => endpoint.to_owned(),
        (None, Some(account)) => format!("https://{account}.blob.core.windows.net"),
        (None, None) => return Err(location.bad("account", "give it, or an endpoint")),
    };
    azblob = azblob.endpoint(&endpoint);
    if let Some(account) = &account {
        azblob = azblob.account_name(account);
    }
    let (key, token) = match &options.credentials {
        Some(given) => (Some(given.secret_access_key.clone()), given.session_token.clone()),
        None => (
            variable("AZURE_STORAGE_KEY").map(Secret::new),
            variable("AZURE_STORAGE_SAS_TOKEN").map(Secret::new),
        ),
    };
    if let Some(key) = key.filter(|key| !key.reveal().is_empty()) {
        azblob = azblob.account_key(key.reveal());
    }
    if let Some(token) = token {
        azblob = azblob.sas_token(token.reveal());
    }
    if location.flag("anonymous")? == Some(true) {
        azblob = azblob.skip_signature();
    }
    Ok(azblob)
}

fn oss(
    location: &RemoteLocation,
    options: &StoreOptions,
    endpoint: Option<&str>,
) -> Result<Oss, StoreError> {
    let Some(endpoint) = endpoint else {
        return Err(location.bad("endpoint", "give it, as https://oss-REGION.aliyuncs.com"));
    };
    let mut oss = Oss::default().bucket(&location.bucket).root(&root(location)).endpoint(endpoint);
    if location.flag("path-style")? == Some(true) {
        oss = oss.addressing_style("path");
    }
    if let Some(credentials) = &options.credentials {
        oss = oss
            .access_key_id(&credentials.access_key_id)
            .access_key_secret(credentials.secret_access_key.reveal());
        if let Some(token) = &credentials.session_token {
            oss = oss.security_token(token.reveal());
        }
    }
    if let Some(role) = location.get("role-arn") {
        oss = oss.role_arn(role);
    }
    match location.get("sse") {
        None => {}
        Some("aes256") => oss = oss.server_side_encryption("AES256"),
        Some("kms") => {
            oss = oss.server_side_encryption("KMS");
            if let Some(key) = location.get("sse-kms-key") {
                oss = oss.server_side_encryption_key_id(key);
            }
        }
        Some(_) => return Err(location.bad("sse", "it is aes256 or kms")),
    }
    if location.flag("anonymous")? == Some(true) {
        oss = oss.skip_signature();
    }
    Ok(oss)
}

fn root(location: &RemoteLocation) -> String {
    format!("/{}", location.prefix)
}

/// The 32 bytes of `sse=customer`, from a file or a variable, as they are or in base64.
fn customer_key(location: &RemoteLocation) -> Result<Vec<u8>, StoreError> {
    let (setting, given) = match (location.get("sse-key-file"), location.get("sse-key-env")) {
        (Some(file), None) => {
            let read = fs::read(file);
            (
                "sse-key-file",
                read.map_err(|e| location.bad("sse-key-file", format!("{file}: {e}")))?,
            )
        }
        (None, Some(name)) => {
            let value = variable(name)
                .ok_or_else(|| location.bad("sse-key-env", format!("{name} is not set")))?;
            ("sse-key-env", value.into_bytes())
        }
        _ => {
            return Err(
                location.bad("sse", "customer needs sse-key-file or sse-key-env, one of them")
            );
        }
    };
    if given.len() == 32 {
        return Ok(given);
    }
    let text = String::from_utf8_lossy(&given);
    let key = base64(text.trim()).filter(|key| key.len() == 32);
    key.ok_or_else(|| location.bad(setting, "that is not a key of 32 bytes, nor the base64 of one"))
}

/// Decodes base64 with padding.
fn base64(text: &str) -> Option<Vec<u8>> {
    let digits = text.trim_end_matches('=');
    let mut bytes = Vec::new();
    let (mut held, mut bits) = (0u32, 0u32);
    for digit in digits.bytes() {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        held = (held << 6 | u32::from(value)) & 0xffff;
        bits += 6;
        if bits >= 8 {
            bits -= 8;
            bytes.push(u8::try_from(held >> bits & 0xff).expect("eight bits"));
        }
    }
    Some(bytes)
}

fn variable(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::options::Location;

    fn open(url: &str) -> Result<Connection, StoreError> {
        let options = StoreOptions::default();
        let Location::Remote(location) = Location::parse(url, &options)? else {
            panic!("a folder")
        };
        connect(&location, &options)
    }

    fn refused(url: &str) -> String {
        match open(url) {
            Err(StoreError::BadOption { option, .. }) => option,
            Err(other) => panic!("{url}: {other}"),
            Ok(_) => panic!("{url} was taken"),
        }
    }

    #[test]
    fn settings_that_do_not_fit_are_refused_by_name() {
        let s3 = "s3://b?endpoint=http://127.0.0.1:1";
        assert_eq!(refused(&format!("{s3}&sse=rot13")), "sse");
        assert_eq!(refused(&format!("{s3}&sse-kms-key=k")), "sse-kms-key");
        assert_eq!(refused(&format!("{s3}&sse=customer")), "sse");
        assert_eq!(
            refused(&format!("{s3}&sse=customer&sse-key-file=/nonexistent")),
            "sse-key-file"
        );
        assert_eq!(refused(&format!("{s3}&ca=/nonexistent")), "ca");
        assert_eq!(refused(&format!("{s3}&ca=/dev/null")), "ca");
        assert_eq!(refused(&format!("{s3}&timeout=soon")), "timeout");
        assert_eq!(refused(&format!("{s3}&retries=1000")), "retries");
        assert_eq!(refused(&format!("{s3}&path-style=maybe")), "path-style");
        assert_eq!(refused(&format!("{s3}&checksum=sha512")), "s3");
        assert_eq!(refused("oss://b"), "endpoint");
    }

    #[test]
    fn stores_of_all_kinds_can_be_named() {
        for url in [
            "s3://b/p?region=eu-central-1&sse=kms&sse-kms-key=arn:aws:kms:x&storage-class=STANDARD_IA",
            "s3://b?endpoint=http://127.0.0.1:1&sse=aes256&checksum=crc32c&retries=0&anonymous=true",
            "gcs://b/p?storage-class=NEARLINE",
            "azblob://c/p?account=a",
            "oss://b/p?endpoint=https://oss-cn-hangzhou.aliyuncs.com&sse=kms&sse-kms-key=k",
        ] {
            open(url).map_err(|e| panic!("{url}: {e}")).ok();
        }
    }

    #[test]
    fn base64_is_decoded() {
        assert_eq!(base64("TGlmZWJvYXQ=").unwrap(), b"Lifeboat");
        assert_eq!(base64("AP/+").unwrap(), [0, 255, 254]);
        assert_eq!(base64("a b"), None);
    }

    #[test]
    fn a_customers_key_comes_from_a_file_raw_or_in_base64() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("key");
        let url = format!("s3://b?endpoint=http://h&sse=customer&sse-key-file={}", file.display());
        for (content, is_key) in [
            (&[7u8; 32][..], true),
            (b"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n", true),
            (b"too short", false),
        ] {
            fs::write(&file, content).unwrap();
            assert_eq!(open(&url).is_ok(), is_key, "{content:?}");
        }
    }
}

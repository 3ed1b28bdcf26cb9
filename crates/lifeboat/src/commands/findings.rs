use snapshot::Finding;

/// Prints a finding as it is made. Damage can be long; every line of it goes to stderr, so that
/// stdout stays what it is for whole files.
pub(crate) fn print(finding: &Finding) {
    match finding.is_harmless() {
        true => say!("warning: {finding}"),
        false => say!("finding: {finding}"),
    }
}

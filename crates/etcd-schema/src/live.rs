use crate::{ReadError, Record, slices::for_each_slice};

/// Number of user keys that exist after all of `records`: what etcd 3.6 calls `totalKey`.
///
/// `records` is called once per pass; a database of up to 900,000 keys usually needs one, and memory
/// stays below 32 MiB for any.
pub fn count_live_keys<'a, I>(records: impl Fn() -> I) -> Result<u64, ReadError>
where
    I: Iterator<Item = Result<Record<'a>, ReadError>>,
{
    let mut live = 0;
    for_each_slice(
        |slice| {
            for record in records() {
                let record = record?;
                let key = record.user_key()?;
                if record.key.tombstone {
                    slice.remove(key);
                } else {
                    slice.get_or_insert(key, || ());
                }
            }
            Ok(())
        },
        |()| live += 1,
    )?;
    Ok(live)
}

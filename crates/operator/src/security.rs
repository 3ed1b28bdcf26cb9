//! As whom the pods of our Jobs run: as Pod Security `restricted` wants it, unless the data's owner is root.
//!
//! | who owns the data | user | capabilities |
//! | --- | --- | --- |
//! | said by `job.securityContext`, or as etcd's container runs | that one, not root | none |
//! | nobody says, in a restore | root | those that writing somebody else's files takes |
//! | nobody says, in a backup: there are none | the image's, not root | none |

use crate::api::{JobOptions, JobUser};
use k8s_openapi::api::core::v1::{
    Capabilities, PodSecurityContext, SeccompProfile, SecurityContext,
};

/// What root needs to write the files of others, and to leave them theirs.
const OF_ROOT: [&str; 3] = ["CHOWN", "DAC_OVERRIDE", "FOWNER"];

/// As whom a pod runs.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Security {
    /// What holds for the pod.
    pub(crate) pod: PodSecurityContext,
    /// What holds for its container.
    pub(crate) container: SecurityContext,
}

impl Security {
    /// Of a pod that writes nobody's files.
    pub(crate) fn of_backup(options: &JobOptions) -> Self {
        let pod =
            PodSecurityContext { run_as_non_root: Some(true), ..PodSecurityContext::default() };
        Self { pod, ..Self::default() }.with(options.security_context.as_ref())
    }

    /// Of a pod that writes a volume: as what uses the volume runs, if that is known.
    pub(crate) fn of_restore(options: &JobOptions, of_etcd: Self) -> Self {
        of_etcd.with(options.security_context.as_ref())
    }

    fn with(self, wanted: Option<&JobUser>) -> Self {
        let Self { mut pod, mut container } = self;
        if let Some(wanted) = wanted {
            container.run_as_user = wanted.run_as_user.or(container.run_as_user);
            container.run_as_group = wanted.run_as_group.or(container.run_as_group);
            pod.fs_group = wanted.fs_group.or(pod.fs_group);
        }
        let non_root = container.run_as_non_root.or(pod.run_as_non_root).unwrap_or(false);
        let mut user = container.run_as_user.or(pod.run_as_user);
        if user.is_none() && !non_root {
            container.run_as_user = Some(0);
            user = Some(0);
        }
        let is_root = user == Some(0);
        container.run_as_non_root = Some(!is_root);
        container.allow_privilege_escalation = Some(false);
        container.privileged = None;
        container.read_only_root_filesystem = Some(true);
        container.capabilities = Some(Capabilities {
            drop: Some(vec!["ALL".to_owned()]),
            add: is_root.then(|| OF_ROOT.map(str::to_owned).to_vec()),
        });
        if container.seccomp_profile.is_none() && pod.seccomp_profile.is_none() {
            let type_ = "RuntimeDefault".to_owned();
            pod.seccomp_profile = Some(SeccompProfile { type_, ..SeccompProfile::default() });
        }
        Self { pod, container }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether Pod Security `restricted` lets it in, as far as users and rights go.
    fn is_restricted(security: &Security) -> bool {
        let Security { pod, container } = security;
        let capabilities = container.capabilities.clone().unwrap();
        let profile = container.seccomp_profile.as_ref().or(pod.seccomp_profile.as_ref());
        container.allow_privilege_escalation == Some(false)
            && container.privileged.is_none()
            && container.run_as_non_root == Some(true)
            && container.run_as_user.or(pod.run_as_user) != Some(0)
            && capabilities.drop == Some(vec!["ALL".to_owned()])
            && capabilities.add.is_none()
            && profile.is_some_and(|profile| profile.type_ == "RuntimeDefault")
    }

    fn of_user(user: JobUser) -> JobOptions {
        JobOptions { security_context: Some(user), ..JobOptions::default() }
    }

    #[test]
    fn a_restricted_namespace_takes_every_pod_that_is_not_root_for_the_data_s_sake() {
        let options = JobOptions::default();
        assert!(is_restricted(&Security::of_backup(&options)));
        let container = SecurityContext {
            run_as_user: Some(1001),
            privileged: Some(true),
            ..SecurityContext::default()
        };
        let etcd = Security { container, ..Security::default() };
        let made = Security::of_restore(&options, etcd);
        assert!(is_restricted(&made), "{made:?}");
        let chosen = of_user(JobUser { run_as_user: Some(1001), ..JobUser::default() });
        assert!(is_restricted(&Security::of_restore(&chosen, Security::default())));
    }

    #[test]
    fn where_nobody_says_whose_the_data_are_root_has_what_their_files_take_and_no_more() {
        let made = Security::of_restore(&JobOptions::default(), Security::default());
        assert_eq!(made.container.run_as_user, Some(0));
        assert_eq!(made.container.run_as_non_root, Some(false));
        let capabilities = made.container.capabilities.unwrap();
        assert_eq!(capabilities.add.unwrap(), OF_ROOT);
    }

    #[test]
    fn who_says_only_that_it_is_not_root_runs_as_the_image_s_user_unless_job_names_another() {
        let pod =
            PodSecurityContext { run_as_non_root: Some(true), ..PodSecurityContext::default() };
        let etcd = Security { pod, ..Security::default() };
        let made = Security::of_restore(&JobOptions::default(), etcd.clone());
        assert_eq!(made.container.run_as_user, None);
        let user = JobUser { run_as_user: Some(7), run_as_group: Some(8), fs_group: Some(9) };
        let made = Security::of_restore(&of_user(user), etcd);
        assert_eq!((made.container.run_as_user, made.container.run_as_group), (Some(7), Some(8)));
        assert_eq!(made.pod.fs_group, Some(9));
    }
}

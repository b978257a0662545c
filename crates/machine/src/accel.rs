/// How QEMU runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// Translated, on any host.
    Tcg,
    /// By the host's own processor, through /dev/kvm.
    Kvm,
}

impl Accel {
    /// QEMU's option.
    pub(crate) fn option(self) -> &'static str {
        match self {
            Self::Tcg => "tcg,thread=multi",
            Self::Kvm => "kvm",
        }
    }

    /// `tcg` or `kvm`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcg => "tcg",
            Self::Kvm => "kvm",
        }
    }
}

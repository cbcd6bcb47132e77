//! A Sigma logsource that a format tells.

use redoubt_crds::SigmaLogsource;

/// What the format tells, with what is declared over it.
pub(crate) fn fill_in(declared: &SigmaLogsource, product: &str, service: Option<&str>, category: Option<&str>) -> SigmaLogsource {
    SigmaLogsource {
        product: declared.product.clone().or_else(|| Some(product.to_owned())),
        service: declared.service.clone().or_else(|| service.map(str::to_owned)),
        category: declared.category.clone().or_else(|| category.map(str::to_owned)),
    }
}

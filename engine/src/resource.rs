//! Reading resources from YAML, with the place of each field.

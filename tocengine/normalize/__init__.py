"""Messages to canonical events: rules say which field goes where, tables what each code means. Pure."""

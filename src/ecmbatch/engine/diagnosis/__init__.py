"""What ``doctor`` looks at, one module for each place to look; every check yields findings and changes nothing."""

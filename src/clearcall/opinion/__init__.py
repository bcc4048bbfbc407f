"""Opinion studies: stimuli, the page that raters vote on, their votes and the statistics of them."""
